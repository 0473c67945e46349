"""A split of pairs of sequences whose sides are padded to one of a few pairs of lengths.

Shapes: N pairs of a split, n gathered pairs, S and T the lengths that sources and targets are
padded to. All lengths count the "<eos>" of a side.
"""

import copy
import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from dlcore.data.sources import Batch
from dlcore.data.text.vocabulary import END
from dlcore.errors import InputError, choose

LONGER = ("drop", "cut")
_MOST_BUCKETS = 4
# The quantiles of lengths that buckets are chosen from, closer together where lengths grow faster.
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97, 0.99, 0.995, 1.0)

Ids = Sequence[int] | np.ndarray
Buckets = tuple[tuple[int, int], ...]


class Pairs:
    """A split of sources and targets that lies in memory.

    Args:
        sources: the ids of N texts, without "<eos>".
        targets: the ids of their translations, without "<eos>".
        limit: the most tokens of a side.
        longer: "drop" leaves a pair with a longer side out, as in training; "cut" keeps the
            beginning of the side, so that an evaluation translates every source.
        buckets: the (S, T) to pad to, in rising order on both sides. None chooses at most four
            that need little padding.

    Attributes:
        source_lengths: int32 [N].
        target_lengths: int32 [N].
        buckets: the (S, T) that batches can have, in rising order.
        bucket_of: the index of the first of the `buckets` that holds each pair, int [N].
        lengths: S + T of that bucket, int [N]; pairs that are sorted by it need little padding.
        dropped: the number of pairs that were left out.
        cut: the number of pairs with a side that lost its end.

    Raises:
        InputError: for a limit below 2 or that all pairs exceed, or another `longer`.
        ValueError: when the sides differ in number, or buckets do not rise or do not hold all
            pairs.

    >>> pairs = Pairs([[5, 6, 7], [8]], [[4], [3, 2]], buckets=[(4, 3)])
    >>> batch = pairs.gather(np.array([1]))
    >>> batch["source"].tolist(), batch["inputs"].tolist(), batch["targets"].tolist()
    ([[8, 1, 0, 0]], [[1, 3, 2]], [[3, 2, 1]])
    """

    def __init__(
        self,
        sources: Sequence[Ids],
        targets: Sequence[Ids],
        *,
        limit: int | None = None,
        longer: str = "drop",
        buckets: Sequence[tuple[int, int]] | None = None,
    ):
        if len(sources) != len(targets):
            raise ValueError(f"expected a target per source, given {len(sources)}, {len(targets)}")
        if longer not in LONGER:
            raise choose("treatment of longer pairs", longer, LONGER)
        total, self.cut = len(sources), 0
        if limit is not None and longer == "cut":
            self.cut = sum(
                max(len(source), len(target)) >= limit
                for source, target in zip(sources, targets, strict=True)
            )
        if limit is not None:
            sources, targets = _limited(sources, targets, limit, longer)
        self.dropped = total - len(sources)
        self._sources, self._targets = _Side.of(sources), _Side.of(targets)
        sides = np.stack([self.source_lengths, self.target_lengths], axis=1)
        self.buckets = tuple(buckets) if buckets else _choose_buckets(sides)
        sizes = np.array(self.buckets)
        if (np.diff(sizes, axis=0) < 0).any() or (sides > sizes[-1]).any():
            raise ValueError(f"buckets {self.buckets} do not rise, or do not hold all pairs")
        self.bucket_of = (sides[:, None] > sizes).any(axis=2).sum(axis=1)
        self.lengths = sizes.sum(axis=1)[self.bucket_of]

    @property
    def source_lengths(self) -> np.ndarray:
        return self._sources.lengths

    @property
    def target_lengths(self) -> np.ndarray:
        return self._targets.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, indices: np.ndarray, *, among: np.ndarray | None = None) -> Batch:
        """Gathers the pairs at `indices` [n], padded with id 0.

        Args:
            indices: the numbers of the pairs.
            among: the pairs that decide the bucket; None means `indices` themselves.

        Returns:
            "source", int32 [n, S], and "source_length", int32 [n]; "inputs" and "targets", int32
            [n, T], and "target_length", int32 [n]. Sources and targets end with "<eos>"; inputs
            start with it and are the targets moved by one step. (S, T) is the first bucket that
            holds all pairs.
        """
        bucket = self.bucket_of[indices if among is None else among].max()
        source_width, target_width = self.buckets[bucket]
        return {
            "source": self._sources.rows(indices, source_width),
            "source_length": self.source_lengths[indices],
            "inputs": self._targets.rows(indices, target_width, shift=-1),
            "targets": self._targets.rows(indices, target_width),
            "target_length": self.target_lengths[indices],
        }

    def subset(self, indices: np.ndarray) -> "Pairs":
        """Returns the pairs at `indices` [n] alone with the same buckets; the tokens are shared."""
        subset = copy.copy(self)
        subset._sources = self._sources.subset(indices)
        subset._targets = self._targets.subset(indices)
        subset.bucket_of, subset.lengths = self.bucket_of[indices], self.lengths[indices]
        return subset


@dataclasses.dataclass(frozen=True)
class _Side:
    """Sequences one after the other, with an "<eos>" before each and after the last.

    Attributes:
        tokens: the tokens of all sequences, int32.
        starts: the position of the first token of each sequence, [N].
        lengths: the length of each sequence, int32 [N].
    """

    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, ragged: Sequence[Ids]) -> "_Side":
        end = np.array([END], np.int32)
        # NumPy would take an empty list for floating-point numbers.
        pieces: list[Ids] = [end]
        for ids in ragged:
            pieces += [ids, end] if len(ids) else [end]
        tokens = np.concatenate(pieces, dtype=np.int32, casting="same_kind")
        lengths = np.fromiter((len(ids) + 1 for ids in ragged), np.int32, len(ragged))
        return cls(tokens, 1 + np.cumsum(lengths, dtype=np.int64) - lengths, lengths)

    def rows(self, indices: np.ndarray, width: int, shift: int = 0) -> np.ndarray:
        """Gathers the sequences at `indices` [n], moved by `shift` and padded: int32 [n, width]."""
        positions = np.arange(width)
        rows = self.tokens.take(self.starts[indices, None] + shift + positions, mode="clip")
        rows[positions >= self.lengths[indices, None]] = 0
        return rows

    def subset(self, indices: np.ndarray) -> "_Side":
        return _Side(self.tokens, self.starts[indices], self.lengths[indices])


def _limited(
    sources: Sequence[Ids], targets: Sequence[Ids], limit: int, longer: str
) -> tuple[list[Ids], list[Ids]]:
    """Drops or cuts pairs with a side of more than `limit` tokens, including "<eos>"."""
    most = limit - 1
    if most < 1:
        raise InputError(f"length limit {limit} leaves no room for a token; give 2 or more")
    if longer == "cut":
        return [ids[:most] for ids in sources], [ids[:most] for ids in targets]
    kept = [
        (source, target)
        for source, target in zip(sources, targets, strict=True)
        if max(len(source), len(target)) <= most
    ]
    if len(sources) and not kept:
        raise InputError(
            f"all {len(sources):,} pairs are longer than the limit of {limit} tokens; raise it"
        )
    return [source for source, _ in kept], [target for _, target in kept]


def _choose_buckets(sides: np.ndarray) -> Buckets:
    """Chooses the buckets, at quantiles of both sides [N, 2], that need the least padding."""
    if not len(sides):
        return ((1, 1),)
    quantiles = np.quantile(sides, _SHARES, axis=0, method="higher").astype(int)
    sizes = np.unique(quantiles, axis=0)
    held = np.array([(sides <= size).all(axis=1).sum() for size in sizes])
    last = len(sizes) - 1

    def tokens(chosen: tuple[int, ...]) -> int:
        """Counts the tokens of all pairs, with their padding in the chosen buckets."""
        buckets = [*chosen, last]
        return int(np.diff(held[buckets], prepend=0) @ sizes[buckets].sum(axis=1))

    inner = itertools.combinations(range(last), min(_MOST_BUCKETS - 1, last))
    return tuple((int(s), int(t)) for s, t in sizes[[*min(inner, key=tokens), last]])
