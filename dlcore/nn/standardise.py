"""The scaling of images at the input of a network. Shapes: B batch, H W image, C channels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.types import PyTree


def standardise(images: Any, mean: np.ndarray, deviation: np.ndarray, params: PyTree) -> jax.Array:
    """Returns images minus the mean, in units of the deviation.

    The result has the type of the parameters, since models compute in that. A deviation below 1
    counts as 1, so that channels which are constant in training stay finite.

    Args:
        images: images of 0..255, [B, H, W, C].
        mean: the mean of each channel, [C], in the same units.
        deviation: the standard deviation of each channel, [C].
        params: the parameters of the network.

    >>> image, one = np.full((1, 1, 1, 1), 30), np.ones(1)
    >>> float(standardise(image, 10 * one, 4 * one, {"kernel": jnp.ones(2)})[0, 0, 0, 0])
    5.0
    """
    mean, deviation = (value.astype(np.float32)[None, None, None] for value in (mean, deviation))
    x = (jnp.asarray(images).astype(jnp.float32) - mean) / jnp.maximum(deviation, 1.0)
    return x.astype(jnp.result_type(*jax.tree.leaves(params)))
