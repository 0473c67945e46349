"""Statistics of images that are measured before training.

Shapes: N images, H W C the height, width and channels of an image.
"""

import numpy as np

from dlcore.data.sources import Arrays, Records, Split

_CHUNK = 256


def labels_of(split: Split) -> np.ndarray:
    """Returns the "label" of each example, [N], or [N, K] for several labels; decodes no image."""
    if isinstance(split, Arrays):
        return split.arrays["label"]
    if isinstance(split, Records):
        return np.array([stored.label for stored in split.source], np.int32)
    parts = range(0, len(split), _CHUNK)
    return np.concatenate(
        [split.gather(np.arange(i, min(i + _CHUNK, len(split))))["label"] for i in parts]
    )


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns weights with which all classes have the same share, float64 [K].

    The weight is N / (K n) for a class with n of the N examples, where K classes have any: the mean
    weight of an example is 1 (King & Zeng 2001). A class without examples has weight 1.

    >>> balanced_weights(np.array([0, 0, 0, 1]), 2).round(3).tolist()
    [0.667, 2.0]
    """
    counts = np.bincount(labels, minlength=num_classes)
    there = np.maximum(counts, 1) * np.count_nonzero(counts)
    return np.where(counts, len(labels) / there, 1.0)


def balanced_positive_weights(labels: np.ndarray) -> np.ndarray:
    """Returns weights of positives that balance the negatives of each class, float64 [K].

    The weight is the number of negatives divided by the number of positives. A class that lacks
    either has weight 1.

    Args:
        labels: [N, K] of 0 and 1.

    >>> balanced_positive_weights(np.array([[1, 1], [0, 1], [0, 1], [0, 1]])).tolist()
    [3.0, 1.0]
    """
    positives = np.asarray(labels, np.float64).sum(0)
    negatives = len(labels) - positives
    return np.where((positives > 0) & (negatives > 0), negatives / np.maximum(positives, 1), 1.0)


def evenly_spaced(split: Split, most: int) -> Split:
    """Returns a split of at most `most` examples at even distances.

    The first examples would not do, because folders and archives are often ordered by class.

    >>> from dlcore.data import Arrays
    >>> evenly_spaced(Arrays({"label": np.arange(9)}), 3).gather(np.arange(3))["label"].tolist()
    [0, 4, 8]
    """
    if len(split) <= most:
        return split
    return split.subset(np.linspace(0, len(split) - 1, most).round().astype(int))


def channel_moments(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and the standard deviation of each channel, float64 [C], in 0..255.

    Args:
        split: N examples with "image", uint8 [H, W, C]; a few hundred are gathered at a time.
    """
    total = square = pixels = 0.0
    for start in range(0, len(split), _CHUNK):
        images = split.gather(np.arange(start, min(start + _CHUNK, len(split))))["image"]
        for image in images:  # one at a time, so that the float64 copy stays small
            values = image.reshape(-1, image.shape[-1]).astype(np.float64)
            total += values.sum(0)
            square += (values * values).sum(0)
            pixels += len(values)
    mean = np.asarray(total / pixels)
    return mean, np.sqrt(np.maximum(square / pixels - mean * mean, 0.0))
