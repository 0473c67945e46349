"""Few labelled examples among many that are treated as unlabelled.

Shapes: N examples of a split, M labelled ones, B batch.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from dlcore.data.loader import Loader
from dlcore.data.sources import Batch, Split
from dlcore.errors import InputError


def choose_labelled(
    labels: np.ndarray, count: int, class_names: tuple[str, ...], seed: int
) -> np.ndarray:
    """Returns the indices of M examples, drawn by a seed so that classes differ by at most one.

    Args:
        labels: int (N,) below the number of classes.
        count: M.
        class_names: K names.
        seed: the seed of the draw.

    Raises:
        InputError: when M is 0 or exceeds N, when there is less than one example for each class,
            and when a class has too few examples for its share.

    >>> labels = np.array([0, 1, 1, 0, 1])
    >>> np.bincount(labels[choose_labelled(labels, 4, ("a", "b"), 0)]).tolist()
    [2, 2]
    """
    classes = len(class_names)
    if not 0 < count <= len(labels):
        raise InputError(
            f"--labels={count} of {len(labels)} training examples is not possible; give 1 to "
            f"{len(labels)}"
        )
    if count < classes:
        raise InputError(
            f"--labels={count} leaves some of {classes} classes without a labelled example; give "
            f"{classes} or more"
        )
    rng = np.random.default_rng(seed)
    shares = np.full(classes, count // classes)
    # Which classes have one more than others is drawn too.
    shares[rng.permutation(classes)[: count % classes]] += 1
    chosen = []
    for label, (name, share) in enumerate(zip(class_names, shares, strict=True)):
        own = np.flatnonzero(labels == label)
        if len(own) < share:
            raise InputError(
                f"class {name!r} has {len(own)} training examples, and --labels={count} takes "
                f"{share} of each class; give fewer labels"
            )
        chosen.append(rng.permutation(own)[:share])
    return np.sort(np.concatenate(chosen))


class Beside:
    """A loader of batches of labelled examples and as many unlabelled ones.

    Args:
        labelled: the M labelled examples, {"image", "label"}.
        every: the N examples whose labels are ignored.
        batch_size: B, the number of each kind.
        seed: the seed of both orders.
        **part: the part of a batch that this process feeds, as `Loader` takes it.
    """

    def __init__(self, labelled: Split, every: Split, batch_size: int, *, seed: int, **part: Any):
        self._labelled = Loader(labelled, batch_size, seed=seed, **part)
        self._every = Loader(every, batch_size, seed=seed, **part)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yields {"labelled", "label", "image", "weight"} from step `start` on without end."""
        streams = self._labelled.batches(start), self._every.batches(start)
        for _ in range(start, sys.maxsize):
            few, many = (next(stream) for stream in streams)
            yield {
                "labelled": few["image"],
                "label": few["label"],
                "image": many["image"],
                "weight": many["weight"],
            }
