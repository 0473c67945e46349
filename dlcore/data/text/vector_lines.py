"""Parses the lines of files of word vectors: a word and D decimal numbers."""

import warnings
from typing import NamedTuple

import numpy as np

from dlcore.errors import InputError

_SHOWN = 3  # faulty places that a note names
_OVERFLOW = 2.0**128 - 2.0**103  # the smallest number that no finite float32 is nearest to


class Block(NamedTuple):
    """Vectors that were read, and the faults that were found.

    Attributes:
        words: k words.
        vectors: the vectors of the words, float32 [k, D].
        faults: the reasons by the places that could not be read, such as "line 5".
    """

    words: list[bytes]
    vectors: np.ndarray
    faults: dict[str, str]


def fault(name: str, place: str, reason: str) -> InputError:
    """Returns the error for a faulty place in a file of word vectors."""
    return InputError(
        f"{name}, {place}: {reason}; give word vectors of word2vec, GloVe or fastText"
    )


def describe(faults: dict[str, str]) -> str:
    """Returns a list of some faults in words."""
    shown = "; ".join(f"{place}: {reason}" for place, reason in [*faults.items()][:_SHOWN])
    return shown + (f"; and {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else "")


def parse_block(lines: list[bytes], dimension: int) -> Block | None:
    """Parses the words and vectors of lines at once.

    Returns None if a line is faulty or a word holds a space, so that the caller uses `parse_lines`.

    >>> parse_block([b"cat 1 0.5", b"dog 2 -1"], 2)[:2]
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
    return Block([part[0] for part in parts], numbers.reshape(-1, dimension), {})


def parse_lines(lines: dict[int, bytes], dimension: int) -> Block:
    """Parses words, which may hold spaces, and vectors of lines by their numbers one by one."""
    words, vectors, faults = [], [], {}
    for number, line in lines.items():
        found = _parse(line, dimension)
        if isinstance(found, str):
            faults[f"line {number}"] = found
        else:
            words.append(found[0])
            vectors.append(found[1])
    return Block(words, np.array(vectors, np.float32).reshape(-1, dimension), faults)


def _parse(line: bytes, dimension: int) -> tuple[bytes, list[float]] | str:
    """Returns a word and its vector, or the reason why they cannot be read."""
    word, *values = line.rsplit(maxsplit=dimension) or [b""]
    # A word may itself be a space, with another one after it.
    gap = len(line) - len(line.lstrip(b" "))
    if len(values) == dimension - 1 and gap > 1 and _is_number(word):
        word, values = b" " * (gap - 1), [word, *values]
    # A number at the end of the word is a value too many; a word with spaces ends otherwise.
    extra = word.split()[1:]
    count = len(values) + (len(extra) if extra and _is_number(extra[-1]) else 0)
    if count != dimension:
        return f"expected {dimension} values, found {count}"
    if wrong := [value for value in values if not _is_number(value)]:
        return f"{wrong[0].decode(errors='surrogateescape')[:40]!r} is not a finite number"
    return word.strip() or word, [*map(float, values)]


def _is_number(text: bytes) -> bool:
    """Returns whether a text is a finite float32, after rounding."""
    try:
        return abs(float(text)) < _OVERFLOW
    except ValueError:
        return False
