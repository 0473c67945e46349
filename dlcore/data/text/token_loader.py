"""Loads batches of about equally many tokens: a batch of short pairs has more pairs.

Like a batch of `dlcore.data.Loader`, a batch is a pure function of (seed, step, process): nothing
needs saving, and any number of processes sees parts of the same global batches.

Shapes: B pairs of a global batch, S and T the lengths of their sides with padding, P processes.
"""

import functools
import itertools
from collections.abc import Iterator

import numpy as np

from dlcore.data.loader import process_rows
from dlcore.data.sources import Batch
from dlcore.data.text.pairs import Pairs
from dlcore.errors import InputError


class TokenLoader:
    """A loader of training batches of pairs, each with about `tokens` target tokens.

    Every pair comes once per epoch. All pairs of a batch are of one bucket, and all batches of a
    bucket have one shape (B, S, T). In each epoch the pairs of every bucket are shuffled anew, then
    the batches of all buckets. Rows that fill the last batch of a bucket have weight 0.

    Args:
        pairs: at least one pair.
        tokens: the most target tokens of a global batch with its padding: B is as many as fit.
        seed: the seed of the order of the pairs.
        multiple: the number of devices times that of accumulated steps. B is a positive multiple of
            it, even if the batch has more than `tokens` target tokens then.
        process_index: the number of this process, from 0 to P - 1.
        process_count: P, which must divide `multiple`.

    Attributes:
        shapes: (B, S, T) of each bucket that has pairs.
        steps_per_epoch: the number of batches that hold every pair once.
        tokens_per_epoch: the number of target tokens in them, without padding.

    Raises:
        InputError: when there are no pairs, the number of tokens is not positive, the seed is
            negative, or P does not divide `multiple`.
    """

    def __init__(
        self,
        pairs: Pairs,
        tokens: int,
        *,
        seed: int,
        multiple: int = 1,
        process_index: int = 0,
        process_count: int = 1,
    ):
        if not len(pairs):
            raise InputError("the split has no pairs; choose a data set that has some")
        if tokens < 1:
            raise InputError(f"a batch of {tokens} tokens holds nothing; give 1 or more")
        if seed < 0:
            raise InputError(f"seed {seed} is negative; give 0 or more")
        process_rows(multiple, process_index, process_count)
        self._pairs = pairs
        self._seed = seed
        self._process = process_index, process_count
        # The pairs of each bucket that has any, and the number of rows of its batches.
        self._buckets: list[tuple[np.ndarray, int]] = []
        shapes = []
        for bucket, (source, target) in enumerate(pairs.buckets):
            members = np.flatnonzero(pairs.bucket_of == bucket)
            if len(members):
                rows = max(1, tokens // target // multiple) * multiple
                self._buckets.append((members, rows))
                shapes.append((rows, source, target))
        self.shapes = tuple(shapes)
        self.steps_per_epoch = sum(-(-len(members) // rows) for members, rows in self._buckets)
        self.tokens_per_epoch = int(pairs.target_lengths.sum())
        self._epoch = functools.lru_cache(maxsize=1)(self._shuffled)

    def batch(self, step: int) -> Batch:
        """Returns this process's slice of global batch `step`.

        It holds the arrays of `Pairs.gather` with leading axis B / P, and "weight", float32
        [B / P].
        """
        epoch, number = divmod(step, self.steps_per_epoch)
        indices, rows = self._epoch(epoch)[number]
        own_rows = process_rows(rows, *self._process)
        # Rows that only fill the batch repeat its first pair.
        filled = np.concatenate([indices, np.repeat(indices[:1], rows - len(indices))])
        weight = (np.arange(rows) < len(indices)).astype(np.float32)
        return {**self._pairs.gather(filled[own_rows]), "weight": weight[own_rows]}

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yields the batches from step `start` on without end."""
        return map(self.batch, itertools.count(start))

    def _shuffled(self, epoch: int) -> list[tuple[np.ndarray, int]]:
        """Returns the pairs of each batch of an epoch and its number of rows."""
        rng = np.random.Generator(np.random.Philox(key=np.array([self._seed, epoch], np.uint64)))
        batches = []
        for members, rows in self._buckets:
            order = rng.permutation(members)
            batches += [(order[first : first + rows], rows) for first in range(0, len(order), rows)]
        return [batches[number] for number in rng.permutation(len(batches))]
