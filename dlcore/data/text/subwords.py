"""Sub-words: character n-grams as in fastText, which give vectors to unseen words too.

A word is marked as <word>; its sub-words are the n-grams of the marked word with lengths in a range
of characters, each as often as it occurs (Bojanowski et al. 2017, "Enriching Word Vectors with
Subword Information", section 3.2). The hash of an n-gram selects its row of a table, so that
several n-grams share a row. Hash, order and rows are those of the program fastText.

Shapes: V words, L n-grams of the longest word, K rows (buckets) of the table of n-grams, C
characters of all words together with their marks.
"""

from collections.abc import Sequence

import numpy as np

from dlcore.errors import InputError

_OFFSET, _PRIME = np.uint32(2166136261), np.uint32(16777619)  # of FNV-1a with 32 bits
_LONGEST_CHARACTER = 4  # bytes of UTF-8


def subword_ids(
    words: Sequence[str], *, shortest: int = 3, longest: int = 6, buckets: int
) -> np.ndarray:
    """Returns the rows of the words' n-grams, sorted by their first character, then by length.

    A mark alone is not an n-gram; the whole <word> is one if it is short enough.

    Args:
        words: V words.
        shortest: the fewest characters of an n-gram, marks included.
        longest: the most characters of an n-gram, marks included.
        buckets: K.

    Returns:
        int32 [V, L] in [0, K), padded with -1.

    Raises:
        InputError: for lengths that are not 1 <= shortest <= longest, or K outside 1..2^31 - 1.

    The n-grams of <at> of three characters are <at and at>; no other word is as long:

    >>> (subword_ids(["at", "a"], shortest=3, longest=3, buckets=100) >= 0).tolist()
    [[True, True], [True, False]]
    """
    if not 1 <= shortest <= longest:
        raise InputError(
            f"sub-words of {shortest} to {longest} characters are not possible; give lengths of 1 "
            "or more, the shortest first"
        )
    if not 1 <= buckets < 1 << 31:
        raise InputError(f"{buckets} buckets are not possible; give 1 to {(1 << 31) - 1}")
    sizes = np.fromiter((len(word) + 2 for word in words), np.int64, len(words))
    owner = np.repeat(np.arange(len(words)), sizes)  # [C]: the word of a character
    at = np.arange(len(owner))
    end = np.cumsum(sizes)[owner]
    characters = _characters("".join(f"<{word}>" for word in words))
    hashes = np.full(len(owner), _OFFSET)
    grams, real = [], []
    for length in range(1, longest + 1):
        # Extends the hashes of the first length - 1 characters by one character.
        last = at + length - 1
        inside = last < end
        for byte in characters[:, np.minimum(last, len(at) - 1)]:
            hashes = np.where(byte, (hashes ^ _signed(byte)) * _PRIME, hashes)
        if length >= shortest:
            mark = (length == 1) & ((at == end - sizes[owner]) | (at == end - 1))
            grams.append((hashes % np.uint32(buckets)).astype(np.int32))
            real.append(inside & ~mark)
    chosen = np.stack(real, 1)  # [C, lengths]
    flat, of_word = np.stack(grams, 1)[chosen], np.repeat(owner, chosen.sum(1))
    counts = np.bincount(of_word, minlength=len(words))
    ids = np.full((len(words), counts.max(initial=0)), -1, np.int32)
    ids[of_word, np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)] = flat
    return ids


def _characters(text: str) -> np.ndarray:
    """Returns the UTF-8 bytes of each character, uint8 [4, C], 0 past the last byte."""
    data = np.frombuffer(text.encode(errors="surrogatepass"), np.uint8)
    first = np.flatnonzero(data & 0xC0 != 0x80)
    sizes = np.diff(first, append=len(data))
    place = np.arange(_LONGEST_CHARACTER)[:, None]
    inside = np.minimum(first + place, len(data) - 1)
    return np.where(place < sizes, data[inside], 0)


def _signed(byte: np.ndarray) -> np.ndarray:
    """Widens bytes to 32 bits; fastText reads those above 127 as negative numbers."""
    return byte.astype(np.int8).astype(np.int32).astype(np.uint32)
