"""The stateless, seekable loader: a batch is a pure function of (seed, step, process).

The examples of a run form one endless stream: a fresh permutation of the split for each epoch, one
after the other. Global batch t holds the stream's positions t B to (t + 1) B. So every example
comes exactly once per epoch, any step can be computed at any time, and no state needs saving. Each
process gathers its contiguous slice of the global batch, which is the same for any number of
processes.

With sampling weights an epoch still draws N examples, but each as often as its weight says instead
of once.

Where examples differ in length, the permutation of an epoch puts examples of similar length into a
batch, so that little is padded, unless `similar_lengths` is false. All of the above still holds.

Shapes: B examples of the global batch, P processes, N examples of the split, n gathered examples.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from dlcore.data.sources import Batch, Records, Split
from dlcore.errors import InputError

# The number of batches that are sorted by length together: fewer would pad more, more would put
# the same examples into one batch again and again.
_POOL = 16


@runtime_checkable
class Ragged(Split, Protocol):
    """A split of examples that differ in length and are padded when they are gathered.

    Attributes:
        lengths: the lengths of the N examples, [N].
    """

    lengths: np.ndarray

    def gather(self, indices: np.ndarray, *, among: np.ndarray | None = None) -> Batch:
        """Gathers the examples at `indices` [n], padded to the longest example of `among`."""
        ...


class Loader:
    """A loader of the training batches of a split, which it shuffles anew in each epoch.

    Args:
        split: N examples, at least one; N may be smaller than B.
        batch_size: B, over all processes.
        seed: the seed of the order of the examples.
        process_index: the number of this process, from 0 to P - 1.
        process_count: P, which must divide B.
        sampling_weights: how often each example is drawn, relative to the others, [N]. An epoch has
            N w_i / sum(w) copies of example i, rounded up or down at random.
        similar_lengths: whether a batch has examples of similar length. It must not where
            statistics of the batch normalise activations, because these would reveal the length
            in training but not later.

    Raises:
        InputError: when B is not a positive multiple of P, the split is empty or the seed negative.
        ValueError: when the sampling weights are not N numbers >= 0, some of them positive.

    >>> from dlcore.data import Arrays
    >>> split = Arrays({"label": np.arange(5, dtype=np.int32)})
    >>> loader = Loader(split, 5, seed=0)
    >>> sorted(loader.batch(7)["label"].tolist())
    [0, 1, 2, 3, 4]
    >>> np.array_equal(loader.batch(7)["label"], Loader(split, 5, seed=0).batch(7)["label"])
    True
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
        sampling_weights: np.ndarray | None = None,
        similar_lengths: bool = True,
    ):
        if sampling_weights is not None:
            total = np.sum(sampling_weights)
            if len(sampling_weights) != len(split) or not 0 < total < np.inf:
                raise ValueError(f"sampling weights must be {len(split)} finite numbers, not all 0")
            if np.min(sampling_weights) < 0:
                raise ValueError("sampling weights must not be negative")
        self._sampling_weights = sampling_weights
        self._similar_lengths = similar_lengths
        if seed < 0:
            raise InputError(f"seed {seed} is negative; give 0 or more")
        self._split = split
        self._batch_size = batch_size
        self._seed = seed
        self._gather = _gatherer(split, process_rows(batch_size, process_index, process_count))
        # Threads that prefetch may read batches of two neighbouring epochs at the same time.
        self._permutation = functools.lru_cache(maxsize=2)(self._shuffled)

    def batch(self, step: int) -> Batch:
        """Returns this process's slice of global batch `step`.

        It holds the split's arrays with leading axis B / P, and "weight", float32 ones [B / P].
        """
        return _weighted(self._gather(self._chosen(step)))

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yields the batches from step `start` on without end; reads ahead from the disk."""
        return _stream(self._split, self.batch, range(start, sys.maxsize))

    def _chosen(self, step: int) -> np.ndarray:
        """Returns the indices [B] of the examples of global batch `step`."""
        first = step * self._batch_size
        return self._indices(first, first + self._batch_size)

    def _indices(self, start: int, stop: int) -> np.ndarray:
        """Returns the indices of the examples at positions `start` to `stop` of the stream."""
        pieces = []
        while start < stop:
            epoch, offset = divmod(start, len(self._split))
            pieces.append(self._permutation(epoch)[offset : offset + stop - start])
            start += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _shuffled(self, epoch: int) -> np.ndarray:
        """Returns the order of the examples in an epoch."""
        rng = np.random.Generator(np.random.Philox(key=np.array([self._seed, epoch], np.uint64)))
        order = rng.permutation(len(self._split))
        if self._sampling_weights is not None:
            drawn = _systematic(self._sampling_weights[order], rng.random())
            order = rng.permutation(order[drawn])
        if not (self._similar_lengths and isinstance(self._split, Ragged)):
            return order
        # Only batches that lie wholly in this epoch are sorted; those at its ends are shared with
        # the neighbouring epochs.
        start = -epoch * len(order) % self._batch_size
        count = max(0, len(order) - start) // self._batch_size
        head, whole, tail = np.split(order, [start, start + count * self._batch_size])
        pool = np.arange(len(whole)) // (_POOL * self._batch_size)
        by_length = whole[np.lexsort((self._split.lengths[whole], pool))]
        batches = by_length.reshape(count, self._batch_size)
        return np.concatenate([head, rng.permutation(batches).ravel(), tail])


def _systematic(weights: np.ndarray, offset: float) -> np.ndarray:
    """Draws N indices [N] by weights [N] at even distances that start at `offset` in 0..1.

    Systematic sampling has the least variance of all ways to draw (Carpenter et al. 1999): each
    index comes as often as expected, rounded up or down.
    """
    ends = np.cumsum(weights, dtype=np.float64)
    places = (np.arange(len(weights)) + offset) * (ends[-1] / len(weights))
    found = np.searchsorted(ends, places, side="right")
    # Rounding may put the last place at the very end, behind the last weight that is not 0.
    return np.minimum(found, np.flatnonzero(weights)[-1])


def evaluation_batches(
    split: Split, batch_size: int, *, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """Yields this process's slices of the whole split in its order, all batches of full size.

    Examples that differ in length are padded less when the split is sorted by length first:
    `split.subset(np.argsort(split.lengths))`.

    Args:
        split: N examples, at least one.
        batch_size: B, over all processes.
        process_index: the number of this process, from 0 to P - 1.
        process_count: P, which must divide B.

    Returns:
        ceil(N / B) batches in every process. Rows past the end repeat the split's first example
        with weight 0.

    Raises:
        InputError: when B is not a positive multiple of P, or the split is empty.

    >>> from dlcore.data import Arrays
    >>> split = Arrays({"label": np.arange(3, dtype=np.int32)})
    >>> for batch in evaluation_batches(split, 2):
    ...     print(batch["label"], batch["weight"])
    [0 1] [1. 1.]
    [2 0] [1. 0.]
    """
    own_rows = process_rows(batch_size, process_index, process_count)
    gather = _gatherer(split, own_rows)

    def batch(step: int) -> Batch:
        rows = np.arange(batch_size) + step * batch_size
        real = rows < len(split)
        return _weighted(gather(np.where(real, rows, 0)), real[own_rows])

    return _stream(split, batch, range(-(-len(split) // batch_size)))


def process_rows(batch_size: int, process_index: int, process_count: int) -> slice:
    """Returns the rows of a global batch that a process holds.

    Raises:
        InputError: when the processes cannot share the batch evenly.

    >>> process_rows(12, process_index=1, process_count=3)
    slice(4, 8, None)
    """
    if not 0 <= process_index < process_count:
        raise ValueError(f"process {process_index} is not one of {process_count}")
    if batch_size < 1 or batch_size % process_count:
        nearest = max(1, round(batch_size / process_count)) * process_count
        raise InputError(
            f"batch size {batch_size} cannot be shared by {process_count} "
            f"process{'es' if process_count > 1 else ''}; the nearest that can is {nearest}"
        )
    rows = batch_size // process_count
    return slice(process_index * rows, (process_index + 1) * rows)


def parts_of_batches(
    batches: Iterator[Mapping[str, np.ndarray]],
    multiple: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Yields the part of each batch that a process feeds, for batches that are made as a whole.

    Args:
        batches: whole batches, the same in every process.
        multiple: the number of rows is padded to a multiple of this, by zeros at the end.
        process_index: the number of this process.
        process_count: the number of processes, which must divide `multiple`.

    >>> next(parts_of_batches(iter([{"x": np.arange(1, 6)}]), 4, process_index=1, process_count=2))
    {'x': array([5, 0, 0, 0])}
    """
    for batch in batches:
        parts = {}
        for name, leaf in batch.items():
            missing = -len(leaf) % multiple
            rows = process_rows(len(leaf) + missing, process_index, process_count)
            if missing:
                leaf = np.pad(leaf, [(0, missing), *[(0, 0)] * (leaf.ndim - 1)])
            parts[name] = leaf[rows]
        yield parts


def _gatherer(split: Split, rows: slice) -> Callable[[np.ndarray], Batch]:
    """Returns a function of the indices [B] of a global batch that gathers some of its rows."""
    if not len(split):
        raise InputError("the split has no examples; choose a data set that has some")
    if isinstance(split, Ragged):
        # All processes pad to the longest example of the global batch.
        return lambda indices: split.gather(indices[rows], among=indices)
    return lambda indices: split.gather(indices[rows])


def _weighted(batch: Batch, real: np.ndarray | None = None) -> Batch:
    """Adds the weight of each row to a batch: 1, or 0 where the row is not `real`."""
    rows = len(next(iter(batch.values())))
    weight = np.ones(rows, np.float32) if real is None else real.astype(np.float32)
    return {**batch, "weight": weight}


def _stream(split: Split, batch: Callable[[int], Batch], steps: range) -> Iterator[Batch]:
    """Yields the batches of `steps` in order; threads read ahead if the split is on disk."""
    if not isinstance(split, Records):
        return map(batch, steps)
    # Grain imports JAX, which a process that only prepares data does without.
    import grain

    threads = os.cpu_count() or 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    numbers = grain.MapDataset.range(steps.start, steps.stop)
    return iter(numbers.map(batch).to_iter_dataset(options))
