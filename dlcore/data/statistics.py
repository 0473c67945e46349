"""What is measured on images before training. Shapes: N images, H W C their sizes."""

import numpy as np

from dlcore.data.sources import Split

_CHUNK = 256


def evenly_spaced(split: Split, most: int) -> Split:
    """At most `most` examples at even distances: folders and archives often go class by class."""
    if len(split) <= most:
        return split
    return split.subset(np.linspace(0, len(split) - 1, most).round().astype(int))


def channel_moments(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of each channel, float64 (C,) each, in units of 0..255.

    Args:
        split: with "image" uint8 (H, W, C); gathered a few hundred images at a time.
    """
    total = square = pixels = 0.0
    for start in range(0, len(split), _CHUNK):
        images = split.gather(np.arange(start, min(start + _CHUNK, len(split))))["image"]
        for image in images:  # one at a time, so that float64 copies stay small
            values = image.reshape(-1, image.shape[-1]).astype(np.float64)
            total += values.sum(0)
            square += (values * values).sum(0)
            pixels += len(values)
    mean = np.asarray(total / pixels)
    return mean, np.sqrt(np.maximum(square / pixels - mean * mean, 0.0))
