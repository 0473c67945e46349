"""The words of a block of text as positions in its bytes, found and hashed by NumPy.

This is several times faster than making a string of each word: only words that were not seen
before become strings. A rule is a table of the bytes that words are made of; text for which this is
not enough is first rewritten so that the table finds its words.

Shapes: W words of a block.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dlcore.data.text.words import find_letters, find_words

_CHUNK = 8  # bytes hashed at once
_ROUNDS = 8  # chunks of a word that are; words of more bytes are rare
_STATE = np.uint64(0x9E3779B97F4A7C15)
_STEPS = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(_CHUNK + 1)], np.uint64)
_WIDE_SPACE = re.compile(r"[\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_APOSTROPHE = ord("'")


class Words(NamedTuple):
    """The words of a block of whole sentences.

    Attributes:
        data: the bytes that hold them, and `_CHUNK` more.
        starts: the position of the first byte of each word, [W].
        stops: the position after its last byte, [W].
        ends: the number of words before the end of each sentence, rising.
    """

    data: bytes
    starts: np.ndarray
    stops: np.ndarray
    ends: np.ndarray

    @classmethod
    def of_lists(cls, sentences: Sequence[list[str]]) -> "Words":
        """Takes the words of sentences. None may hold a line end, and no sentence may be empty."""
        joined = "\n".join([word for words in sentences for word in words])
        data = _padded(f"{joined}\n" if sentences else "")
        stops = np.flatnonzero(np.frombuffer(data, np.uint8)[:-_CHUNK] == ord("\n"))
        starts = np.append(0, stops + 1)[: len(stops)]
        return cls(data, starts, stops, np.cumsum([len(words) for words in sentences], dtype=int))

    def word(self, index: int) -> str:
        """Returns one of the words."""
        return self.data[self.starts[index] : self.stops[index]].decode(errors="surrogatepass")

    def hashes(self) -> np.ndarray:
        """Returns a hash of each word, uint64 [W]; two words of 8 bytes never share one."""
        view = np.ndarray(len(self.data) - _CHUNK + 1, "<u8", self.data, strides=(1,))
        sizes = self.stops - self.starts
        found = _mixed(sizes.astype(np.uint64), view[self.starts] & _MASKS[np.minimum(sizes, 8)])
        longer = np.flatnonzero(sizes > _CHUNK)
        for number in range(1, _ROUNDS):
            if not len(longer):
                return found
            left = sizes[longer] - number * _CHUNK
            chunk = view[self.starts[longer] + number * _CHUNK] & _MASKS[np.minimum(left, 8)]
            found[longer] = _mixed(found[longer], chunk)
            longer = longer[left > _CHUNK]
        for index in longer.tolist():
            word = self.data[self.starts[index] : self.stops[index]]
            found[index] = int.from_bytes(hashlib.blake2b(word, digest_size=_CHUNK).digest())
        return found


class Rule(NamedTuple):
    """A rule that finds the words of a text by its bytes.

    Attributes:
        table: 256 bytes, 1 for each byte that words are made of, else 0.
        apostrophes: whether an apostrophe with word characters on both sides belongs to the word.
        rewritten: rewrites text so that the table finds its words.
    """

    table: bytes
    apostrophes: bool
    rewritten: Callable[[str], str]

    def words(self, text: str) -> Words:
        """Returns the words of a text whose lines are sentences, except lines without words."""
        data = _padded(self.rewritten(text) + "\n")
        known = np.frombuffer(bytearray(data.translate(self.table)), np.uint8)
        known[-_CHUNK:] = 0
        content = np.frombuffer(data, np.uint8)[:-_CHUNK]
        if self.apostrophes:
            places = np.flatnonzero(content == _APOSTROPHE)
            known[places] = known[places - 1] & known[places + 1]
        # What follows the last byte is no word, and so is what stands before the first.
        edges = np.flatnonzero(known != np.append(np.uint8(0), known[:-1]))
        starts, stops = edges[::2], edges[1::2]
        before = np.searchsorted(starts, np.flatnonzero(content == ord("\n")))
        return Words(data, starts, stops, before[np.diff(before, prepend=0) > 0])


def _mixed(state: np.ndarray, chunk: np.ndarray) -> np.ndarray:
    """Returns hashes that differ wherever the chunks differ and the states do not.

    Each bit of both inputs changes each bit of the result in about half of all cases, by the last
    steps of SplitMix64 (Steele et al. 2014).
    """
    mixed = state * _STATE
    mixed ^= chunk
    for shift, factor in _STEPS:
        mixed ^= mixed >> shift
        mixed *= factor
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _padded(text: str) -> bytes:
    return text.encode(errors="surrogatepass") + bytes(_CHUNK)


def _table(known: Callable[[str], bool]) -> bytes:
    """Returns the table for the ASCII characters of words; all other bytes belong to words too."""
    return bytes(code > 127 or known(chr(code)) for code in range(256))


def _by_line(find: Callable[[str], list[str]]) -> Callable[[str], str]:
    """Returns a function that reduces lines beyond ASCII to words with spaces between them."""

    def rewritten(text: str) -> str:
        if text.isascii():
            return text
        lines = text.split("\n")
        return "\n".join(line if line.isascii() else " ".join(find(line)) for line in lines)

    return rewritten


# What `splitting.SPLITTERS` does with lines, by the same names.
RULES = {
    "space": Rule(
        _table(lambda sign: not sign.isspace()),
        False,
        lambda text: text if text.isascii() else _WIDE_SPACE.sub(" ", text),
    ),
    "words": Rule(_table(lambda sign: sign.isalnum() or sign == "_"), True, _by_line(find_words)),
    "letters": Rule(_table(str.isalpha), False, _by_line(find_letters)),
}
