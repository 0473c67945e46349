"""A split of sequences of different lengths that are padded to one of a few lengths.

Shapes: N sequences of a split, n gathered sequences, T the length that these are padded to.
"""

import copy
from collections.abc import Sequence

import numpy as np

from dlcore.data.sources import Batch
from dlcore.errors import InputError

# The shares of the sequences that fit into each bucket. The lengths of sentences and documents
# have a long tail, so equal shares would waste padding on the longest.
_SHARES = (0.5, 0.8, 0.95, 1.0)


Ids = Sequence[int] | np.ndarray


class Sequences:
    """A split of sequences of tokens that lies in memory.

    Args:
        tokens: the ids of N sequences, none of them empty.
        labels: the class of each sequence, [N].
        tags: the tags of each sequence, one per token.
        limit: the most tokens of a sequence; a longer sequence keeps its first `limit` tokens and
            their tags.
        buckets: the lengths T to pad to. None chooses four by quantiles of the lengths.

    Attributes:
        lengths: the lengths of the N sequences, int32 [N], at most `limit`.
        buckets: the lengths T that batches can have, in rising order.
        cut: the number of sequences that lost their end to `limit`.

    Raises:
        InputError: when `limit` is not positive.
        ValueError: when a sequence is empty, labels or tags do not match the tokens, or no bucket
            holds the longest sequence.

    >>> split = Sequences([[4, 5, 6], [7]], labels=[0, 1], buckets=[2, 4])
    >>> batch = split.gather(np.array([1, 0]))
    >>> batch["tokens"].tolist(), batch["length"].tolist()
    ([[7, 0, 0, 0], [4, 5, 6, 0]], [1, 3])
    """

    def __init__(
        self,
        tokens: Sequence[Ids],
        *,
        labels: Ids | None = None,
        tags: Sequence[Ids] | None = None,
        limit: int | None = None,
        buckets: Sequence[int] | None = None,
    ):
        if limit is not None and limit < 1:
            raise InputError(f"length limit {limit} keeps no token; give 1 or more")
        lengths = _lengths(tokens)
        if (lengths == 0).any():
            raise ValueError(f"sequence {int(lengths.argmin())} of {len(lengths)} is empty")
        self._labels = None if labels is None else np.asarray(labels, np.int32)
        if self._labels is not None and self._labels.shape != lengths.shape:
            raise ValueError(f"expected labels [{len(lengths)}], given {self._labels.shape}")
        if tags is not None and not np.array_equal(_lengths(tags), lengths):
            raise ValueError("expected one tag per token, given sequences of other lengths")
        self._starts = np.cumsum(lengths) - lengths
        self.lengths = np.minimum(lengths, limit or lengths.max(initial=0)).astype(np.int32)
        self.cut = int((lengths > self.lengths).sum())
        longest = int(self.lengths.max(initial=1))
        self.buckets = tuple(sorted(set(buckets))) if buckets else _quantiles(self.lengths)
        if longest > self.buckets[-1]:
            raise ValueError(f"buckets {self.buckets} do not hold a sequence of {longest} tokens")
        self._flat = {
            name: np.concatenate(
                [*ragged, np.zeros(self.buckets[-1], np.int32)], dtype=np.int32, casting="same_kind"
            )
            for name, ragged in (("tokens", tokens), ("tags", tags))
            if ragged is not None
        }

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, indices: np.ndarray, *, among: np.ndarray | None = None) -> Batch:
        """Gathers the sequences at `indices` [n], padded with id 0.

        Args:
            indices: the numbers of the sequences.
            among: the sequences whose longest decides T; None means `indices`.

        Returns:
            "tokens", int32 [n, T]; "length", int32 [n]; and "label", int32 [n], or "tags", int32
            [n, T], if the split has them. T is the smallest bucket that holds the longest.
        """
        length = self.lengths[indices]
        longest = (length if among is None else self.lengths[among]).max()
        width = self.buckets[np.searchsorted(self.buckets, longest)]
        padding = np.arange(width) >= length[:, None]
        starts = self._starts[indices]
        batch: Batch = {}
        for name, flat in self._flat.items():
            batch[name] = np.lib.stride_tricks.sliding_window_view(flat, width)[starts]
            batch[name][padding] = 0
        batch["length"] = length
        if self._labels is not None:
            batch["label"] = self._labels[indices]
        return batch

    def subset(self, indices: np.ndarray) -> "Sequences":
        """Returns the sequences at `indices` [n] alone with the same buckets; tokens are shared."""
        subset = copy.copy(self)
        subset._starts, subset.lengths = self._starts[indices], self.lengths[indices]
        subset._labels = None if self._labels is None else self._labels[indices]
        return subset


def _lengths(ragged: Sequence[Ids]) -> np.ndarray:
    return np.fromiter(map(len, ragged), np.int64, len(ragged))


def _quantiles(lengths: np.ndarray) -> tuple[int, ...]:
    """Returns the lengths, without repeats, that hold the `_SHARES` of the sequences."""
    if not len(lengths):
        return (1,)
    return tuple(sorted(set(np.quantile(lengths, _SHARES, method="higher").tolist())))
