"""Finds the filters of a network that can be shown as pictures."""

from collections.abc import Sequence

import numpy as np

from dlcore.paths import leaves_by_path
from dlcore.types import Params


def first_filters(params: Params, image_shape: Sequence[int]) -> np.ndarray | None:
    """Returns the first layer's filters as pictures (h, w, C, filters), or None without any.

    Args:
        params: the parameters. The first leaf that is a convolution over C channels or a product
            with all H W C pixels holds the filters.
        image_shape: (H, W, C).
    """
    for leaf in leaves_by_path(params).values():
        shape = np.shape(leaf)
        if len(shape) == 4 and shape[2] == image_shape[-1] and shape[0] > 1:
            return np.asarray(leaf)
        if len(shape) == 2 and shape[0] == np.prod(image_shape):
            return np.asarray(leaf).reshape(*image_shape, shape[1])
    return None
