"""Draws bits from grey images, for models of binary pixels.

A grey pixel of 0..255 is the probability of a white pixel, in 255ths (Salakhutdinov & Murray 2008,
section 4: each pixel of MNIST is set to 1 with the probability of its intensity). Bits are 0 and
255, so that images of bits are images like any other.

Shapes: N images of a split, n gathered ones, B images of a batch over all processes.
"""

from collections.abc import Iterator

import numpy as np

from dlcore.data.loader import process_rows
from dlcore.data.sources import Arrays, Batch, Split
from dlcore.errors import InputError

# Static bits are those of this seed whatever the seed of a run, so that models, seeds and jobs are
# compared on the same data.
SEED = 0
_CHUNK = 4096  # images that are drawn at a time
# How to draw: never, each pixel once, or anew whenever an image is in a training batch.
BINARISATIONS = ("none", "static", "dynamic")


def static_bits(split: Split, part: int, seed: int = SEED) -> Arrays:
    """Returns a split whose pixels are drawn once.

    Args:
        split: N examples with an "image", uint8.
        part: the number of the split, 0 for training; equal images in two splits get different
            bits.
        seed: the seed of the draw.

    Raises:
        InputError: for images that are not in memory.

    >>> grey = Arrays({"image": np.full((2, 100), 51, np.uint8)})
    >>> bits = static_bits(grey, 0).arrays["image"]
    >>> np.unique(bits).tolist(), bool(0.1 < (bits == 255).mean() < 0.3)
    ([0, 255], True)
    """
    if not isinstance(split, Arrays):
        raise InputError(
            "the images are too many to be drawn once and kept in memory; give --binarise=dynamic "
            "for training, and a test part that fits into memory"
        )
    images = split.arrays["image"]
    rng = _generator(seed, part)
    drawn = np.empty_like(images)
    for start in range(0, len(images), _CHUNK):
        rows = slice(start, start + _CHUNK)
        drawn[rows] = _draw(rng, images[rows])
    return Arrays({**split.arrays, "image": drawn})


def dynamic_bits(
    batches: Iterator[Batch],
    start: int,
    *,
    seed: int,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Yields batches with pixels drawn anew in each step, a function of (seed, step, row).

    Args:
        batches: the batches of a loader, from step `start` on, each with this process's rows of
            "image", uint8.
        start: the step of the first batch.
        seed: the seed of the run.
        batch_size: B.
        process_index: the number of this process.
        process_count: the number of processes, on which the bits do not depend.
    """
    rows = process_rows(batch_size, process_index, process_count)
    for step, batch in enumerate(batches, start):
        rng = _generator(seed, step, 1)
        images = batch["image"]
        # Each process draws for all rows and keeps its own.
        whole = _uniform(rng, (batch_size, *images.shape[1:]))[rows]
        yield {**batch, "image": _bits(whole, images)}


def grey_share(split: Split, most: int = 10_000) -> float:
    """Returns the share of pixels that are neither 0 nor 255, measured on some images."""
    chosen = np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).astype(int))
    images = split.gather(chosen)["image"]
    return float(((images > 0) & (images < 255)).mean())


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([*key])))


def _uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws uniform whole numbers from 0 to 254, uint8."""
    # Eight at a time are eight times as fast as one by one; a 255 is drawn again.
    count = int(np.prod(shape))
    drawn = _bytes(rng, count)
    while len(again := np.flatnonzero(drawn == 255)):
        drawn[again] = _bytes(rng, len(again))
    return drawn.reshape(shape)


def _bytes(rng: np.random.Generator, count: int) -> np.ndarray:
    words = rng.integers(0, 1 << 64, -(-count // 8), np.uint64)
    return words.astype("<u8").view(np.uint8)[:count]


def _bits(uniform: np.ndarray, images: np.ndarray) -> np.ndarray:
    return np.where(uniform < images, np.uint8(255), np.uint8(0))


def _draw(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    return _bits(_uniform(rng, images.shape), images)
