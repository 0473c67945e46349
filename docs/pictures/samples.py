"""The data that pictures show: what scikit-learn ships."""

import functools

import numpy as np
from sklearn import datasets


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns handwritten digits [1797, 8, 8] in 0..1, and their classes."""
    found = datasets.load_digits()
    return found.images.astype(np.float32) / 16, found.target


@functools.cache
def photograph(side: int, name: str = "china.jpg") -> np.ndarray:
    """Returns a square cut of a photograph, uint8 [side, side, 3]."""
    image = datasets.load_sample_image(name)
    side_there = min(image.shape[:2])
    left = (image.shape[1] - side_there) // 2
    places = (np.arange(side) * side_there / side).astype(int)
    return image[places][:, places + left]
