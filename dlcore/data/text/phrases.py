"""Finds phrases, pairs of words that occur together far more often than by chance, and joins them.

A pair a b is a phrase when its score (Mikolov et al. 2013b, "Distributed Representations of Words
and Phrases and their Compositionality", equation 6) times N,

    score(a, b) = (count(a b) - delta) N / (count(a) count(b)),

exceeds a threshold. The paper's equation has no N, so that its threshold depends on the size of the
corpus; the paper's program word2phrase has it, and the defaults here are those of the program.

Shapes: N words of the corpus, n words of a block, P pairs.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from dlcore.data.text.splitting import WordNumbers, in_blocks
from dlcore.errors import InputError

_SECOND = 32  # bits of a pair's key that hold the second word
_WORDS_PER_MERGE = 1 << 22


class Phrases(NamedTuple):
    """The pairs to be joined.

    Attributes:
        passes: the pairs of each pass. The pairs of a later pass are found in text in which the
            earlier ones are joined, so that k passes make phrases of up to 2^k words.
    """

    passes: tuple[frozenset[tuple[str, str]], ...]

    @property
    def fingerprint(self) -> str:
        """A text of 16 hexadecimal digits, which is the same for equal values."""
        content = json.dumps([sorted(pairs) for pairs in self.passes])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


class _Pairs(NamedTuple):
    """Counts int64 [P] of pairs, by their keys int64 [P], which rise."""

    keys: np.ndarray
    counts: np.ndarray

    def merge(self, other: "_Pairs") -> "_Pairs":
        keys = np.concatenate([self.keys, other.keys])
        order = np.argsort(keys, kind="stable")  # the fastest for two sorted runs
        keys, counts = keys[order], np.concatenate([self.counts, other.counts])[order]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        return _Pairs(keys[first], np.add.reduceat(counts, first) if len(first) else counts)


def join(words: list[str], phrases: Phrases) -> list[str]:
    """Joins the phrases of a line by "_", pass by pass, each from the left and without overlap.

    >>> join("in new york city".split(), Phrases((frozenset({("new", "york")}),)))
    ['in', 'new_york', 'city']
    """
    for pairs in phrases.passes:
        words = _joined(words, pairs)
    return words


def find_phrases(
    lines: Iterable[list[str]],
    *,
    threshold: float = 100.0,
    delta: float = 5.0,
    min_count: int = 5,
    before: Phrases | None = None,
    max_pairs: int = 10_000_000,
) -> Phrases:
    """Finds the pairs of neighbours within a line whose score exceeds the threshold.

    Memory is bounded in the manner of word2phrase: whenever there are more than `max_pairs`
    different pairs, the rarest so far are dropped: those counted once at first, then those counted
    twice or less, and so on. A dropped pair that comes again is counted from 0, so no score is ever
    too high. Words are never dropped.

    Args:
        lines: the words of each line, such as those of `sentences`.
        threshold: a higher one makes fewer phrases; one below zero joins all frequent pairs.
        delta: the discount of pairs of rare words.
        min_count: the smallest count of the pair and of each word of a phrase.
        before: phrases that are joined first, to find longer ones.
        max_pairs: the most pairs that are kept after each few million words, 16 bytes each.

    Returns:
        The passes of `before` and one more.

    Raises:
        InputError: when `max_pairs` or `min_count` is below 1.
    """
    for name, value in (("max_pairs", max_pairs), ("min_count", min_count)):
        if value < 1:
            raise InputError(f"{name} {value} is not possible; give 1 or more")
    earlier = before or Phrases(())
    numbers = WordNumbers()
    counts = np.zeros(1, np.int64)
    pairs, least = _Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64)), 1
    blocks = numbers.blocks(in_blocks(join(words, earlier) for words in lines))
    while block := _next_words(blocks):
        ids = np.concatenate(block)
        counts = _sum(counts, np.bincount(ids))
        pairs = pairs.merge(_pairs_of(ids))
        while len(pairs.keys) > max_pairs:
            often = pairs.counts > least
            pairs, least = _Pairs(pairs.keys[often], pairs.counts[often]), least + 1
    first, second = pairs.keys >> _SECOND, pairs.keys & ((1 << _SECOND) - 1)
    total = counts[1:].sum()
    score = (pairs.counts - delta) * total / (counts[first].astype(float) * counts[second])
    # A pair never occurs more often than its words.
    chosen = np.flatnonzero((score > threshold) & (pairs.counts >= min_count))
    words = numbers.words
    named = zip(first[chosen].tolist(), second[chosen].tolist(), strict=True)
    return Phrases((*earlier.passes, frozenset((words[a], words[b]) for a, b in named)))


def _joined(words: list[str], pairs: frozenset[tuple[str, str]]) -> list[str]:
    if pairs.isdisjoint(itertools.pairwise(words)):
        return words
    joined, free = words[:1], True
    for first, second in itertools.pairwise(words):
        free = not (free and (first, second) in pairs)
        if free:
            joined.append(second)
        else:
            joined[-1] = f"{first}_{second}"
    return joined


def _next_words(blocks: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Takes blocks of a few million words together; returns an empty list at the end."""
    taken, size = [], 0
    for block in blocks:
        taken.append(block)
        size += len(block)
        if size >= _WORDS_PER_MERGE:
            break
    return taken


def _pairs_of(ids: np.ndarray) -> _Pairs:
    """Counts the pairs of neighbours in whole sentences [n]."""
    inside = (ids[:-1] > 0) & (ids[1:] > 0)
    keys = (ids[:-1][inside].astype(np.int64) << _SECOND) | ids[1:][inside]
    return _Pairs(*np.unique(keys, return_counts=True))


def _sum(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Adds counts by word; either array may lack the last words."""
    longer, shorter = (left, right) if len(left) > len(right) else (right, left)
    longer[: len(shorter)] += shorter
    return longer
