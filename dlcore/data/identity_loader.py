"""Batches of P identities with K pictures each, for losses over pairs and triplets.

As in `dlcore.data.loader`, a batch is a pure function of (seed, step, process), and the global
batch is the same for any number of processes.

Shapes: P identities of a batch, K pictures of each, N examples of the split, I identities.
"""

import numpy as np

from dlcore.data.loader import Loader
from dlcore.data.sources import Split
from dlcore.errors import InputError


class IdentityLoader(Loader):
    """A loader of training batches of P different identities with K different pictures each.

    An epoch takes each of the I identities once, in a new order, except for the last ones that do
    not fill a batch. So all identities have the same share, whatever the number of their pictures
    (Hermans et al. 2017). The pictures of an identity are taken in a random order, and none is
    taken again before fewer than K are left; of an identity with fewer than K pictures all are
    taken, and then some of them again.

    Rows are ordered by identity, so that an array of the batch can be reshaped to [P, K, ...].

    Args:
        split: N examples with pictures of at least P identities.
        labels: the number of each example's identity, [N], see `dlcore.data.labels_of`.
        identities: P.
        pictures: K.
        seed: the seed of the order of identities and pictures.
        process_index: the number of this process.
        process_count: the number of processes, which must divide P K.

    Raises:
        InputError: when the split has fewer than P identities, P or K is less than 1, the processes
            cannot share the batch, the split is empty or the seed negative.

    >>> from dlcore.data import Arrays
    >>> labels = np.array([0, 0, 1, 1, 2, 2], np.int32)
    >>> loader = IdentityLoader(Arrays({"label": labels}), labels, 3, 2, seed=0)
    >>> np.sort(loader.batch(4)["label"].reshape(3, 2), 0).tolist()
    [[0, 0], [1, 1], [2, 2]]
    """

    def __init__(
        self,
        split: Split,
        labels: np.ndarray,
        identities: int,
        pictures: int,
        *,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
    ):
        if min(identities, pictures) < 1:
            raise InputError(
                f"a batch of {identities} identities with {pictures} pictures each is not "
                "possible; give 1 or more of both"
            )
        super().__init__(
            split,
            identities * pictures,
            seed=seed,
            process_index=process_index,
            process_count=process_count,
        )
        numbers, counts = np.unique(labels, return_counts=True)
        if len(numbers) < identities:
            raise InputError(
                f"a batch of {identities} identities cannot be drawn from {len(numbers)}; take "
                f"{len(numbers)} or fewer, or data of more identities"
            )
        # The pictures of each identity, in the order of the split.
        self._rows = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
        self._identities, self._pictures = identities, pictures
        self.repeating = int(np.count_nonzero(counts < pictures))

    def note(self) -> str | None:
        """Returns the line for the log about identities with fewer than K pictures, if any."""
        if not self.repeating:
            return None
        return (
            f"{self.repeating:,} of {len(self._rows):,} identities have fewer than "
            f"{self._pictures} pictures, and some of these twice or more in a batch"
        )

    def _chosen(self, step: int) -> np.ndarray:
        epoch, place = divmod(step, len(self._rows) // self._identities)
        order = self._permutation(epoch)
        own = order[place * self._identities : (place + 1) * self._identities]
        return np.concatenate([self._drawn(int(identity), epoch) for identity in own])

    def _shuffled(self, epoch: int) -> np.ndarray:
        return self._generator(epoch, 0, 0).permutation(len(self._rows))

    def _drawn(self, identity: int, epoch: int) -> np.ndarray:
        """Returns the indices [K] of the examples that an identity contributes to an epoch."""
        rows = self._rows[identity]
        # So many times the identity takes new pictures before it starts from the first again.
        rounds = max(1, len(rows) // self._pictures)
        cycle, part = divmod(epoch, rounds)
        order = self._generator(cycle, 1, identity).permutation(rows)
        return np.resize(order[part * self._pictures :], self._pictures)

    def _generator(self, number: int, kind: int, identity: int) -> np.random.Generator:
        seeds = np.random.SeedSequence([self._seed, number, kind, identity])
        return np.random.Generator(np.random.Philox(seeds))
