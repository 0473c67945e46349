"""Parses the lines of files of word vectors: a word and D decimal numbers."""

import warnings

import numpy as np

from dlcore.errors import InputError

Block = tuple[list[bytes], np.ndarray]  # k words and their vectors, float32 [k, D]


def fault(name: str, place: str, reason: str) -> InputError:
    """Returns the error for a faulty place in a file of word vectors."""
    return InputError(f"{name}, {place}: {reason}; give word vectors of word2vec or GloVe")


def parse_block(lines: list[bytes], dimension: int) -> Block | None:
    """Parses the words and vectors of lines at once.

    Returns None, so that the caller takes `parse_lines`, if a line is faulty or a word holds a
    space.

    >>> parse_block([b"cat 1 0.5", b"dog 2 -1"], 2)
    ([b'cat', b'dog'], array([[ 1. ,  0.5],
           [ 2. , -1. ]], dtype=float32))
    """
    parts = [line.rstrip().partition(b" ") for line in lines]
    if not all(word and values.count(b" ") == dimension - 1 for word, _, values in parts):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # NumPy before 2.3 only warns
        try:
            numbers = np.fromstring(b" ".join([part[2] for part in parts]), np.float32, sep=" ")
        except (ValueError, DeprecationWarning):
            return None
    if numbers.size != len(lines) * dimension or not np.isfinite(numbers).all():
        return None
    return [part[0] for part in parts], numbers.reshape(-1, dimension)


def parse_lines(lines: dict[int, bytes], dimension: int, name: str) -> Block:
    """Parses words, which may hold spaces, and vectors of lines by their numbers one by one.

    Raises:
        InputError: for the first faulty line.
    """
    words, vectors = [], []
    for number, line in lines.items():
        word, *values = line.rsplit(maxsplit=dimension) or [b""]
        # A number at the end of the word is a value too many; a word with spaces ends otherwise.
        extra = word.split()[1:]
        count = len(values) + (len(extra) if extra and _is_number(extra[-1]) else 0)
        if count != dimension:
            raise fault(name, f"line {number}", f"expected {dimension} values, found {count}")
        if wrong := [value for value in values if not _is_number(value)]:
            reason = f"{wrong[0].decode(errors='surrogateescape')[:40]!r} is not a finite number"
            raise fault(name, f"line {number}", reason)
        words.append(word)
        vectors.append(list(map(float, values)))
    return words, np.array(vectors, np.float32)


def _is_number(text: bytes) -> bool:
    """Returns whether a text is a finite float32."""
    try:
        return abs(float(text)) <= float(np.finfo(np.float32).max)
    except ValueError:
        return False
