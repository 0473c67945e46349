"""Training at several scales (Redmon & Farhadi 2017, section 2)."""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from dlcore.types import Batch

EVERY = 10  # steps of one side


def at_scales(
    batches: Callable[[int], Iterator[Batch]], side: int, stride: int, share: float, seed: int
) -> Callable[[int], Iterator[Batch]]:
    """Returns training batches whose pictures have another side every ten steps.

    The side is a function of the seed and the step alone.

    Args:
        batches: from a step on, of square pictures.
        side: of the pictures.
        stride: a side is a multiple of it.
        share: by which the side varies at most, up and down.
        seed: of the run.
    """
    low, high = -(-side * (1 - share) // stride), side * (1 + share) // stride
    sides = [int(n) * stride for n in np.arange(max(1, low), high + 1)] or [side]

    def scaled(first: int) -> Iterator[Batch]:
        for step, batch in enumerate(batches(first), first):
            rng = np.random.Generator(np.random.Philox(key=[seed, step // EVERY]))
            yield resized(batch, int(rng.choice(sides)))

    return scaled


def resized(batch: Batch, side: int) -> Batch:
    """Returns a batch with its square pictures brought to another side, and all in them."""
    images = batch["image"]
    if images.shape[1] == side:
        return batch
    factor = np.float32(side / images.shape[1])
    new = [
        np.asarray(
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).resize(
                (side, side), Image.Resampling.BILINEAR
            )
        ).reshape(side, side, -1)
        for image in images
    ]
    places = {name: batch[name] * factor for name in ("boxes", "landmarks") if name in batch}
    return {**batch, **places, "image": np.stack(new)}
