"""Lines of files of word vectors: a word and D decimal numbers."""

import warnings

import numpy as np

from dlcore.errors import InputError

Block = tuple[list[bytes], np.ndarray]  # k words and their vectors, float32 [k, D]


def bad(name: str, place: str, what: str) -> InputError:
    """The error of a place in a file of word vectors."""
    return InputError(f"{name}, {place}: {what}; give word vectors of word2vec or GloVe")


def parse_block(lines: list[bytes], dimension: int) -> Block | None:
    """The words and vectors of lines; None if a line is at fault or its word holds a space."""
    parts = [line.rstrip().partition(b" ") for line in lines]
    if not all(word and values.count(b" ") == dimension - 1 for word, _, values in parts):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # what NumPy before 2.3 raises
        try:
            numbers = np.fromstring(b" ".join([part[2] for part in parts]), np.float32, sep=" ")
        except (ValueError, DeprecationWarning):
            return None
    if numbers.size != len(lines) * dimension or not np.isfinite(numbers).all():
        return None
    return [part[0] for part in parts], numbers.reshape(-1, dimension)


def parse_lines(lines: dict[int, bytes], dimension: int, name: str) -> Block:
    """The words, which may hold spaces, and vectors of lines by number; finds what is at fault."""
    words, vectors = [], []
    for number, line in lines.items():
        word, *values = line.rsplit(maxsplit=dimension) or [b""]
        # The end of a word that holds spaces is no number; a value too many is one.
        extra = word.split()[1:]
        given = len(values) + (len(extra) if extra and _is_number(extra[-1]) else 0)
        if given != dimension:
            raise bad(name, f"line {number}", f"expected {dimension} values, found {given}")
        if wrong := [value for value in values if not _is_number(value)]:
            what = f"{wrong[0].decode(errors='surrogateescape')[:40]!r} is not a finite number"
            raise bad(name, f"line {number}", what)
        words.append(word)
        vectors.append(list(map(float, values)))
    return words, np.array(vectors, np.float32)


def _is_number(text: bytes) -> bool:
    """Whether a text is a finite float32."""
    try:
        return abs(float(text)) <= float(np.finfo(np.float32).max)
    except ValueError:
        return False
