"""Total variation of pictures. Shapes: B pictures, H W their size, C channels."""

import jax
import jax.numpy as jnp

from dlcore.types import at_least_float32


def total_variation(pictures: jax.Array) -> jax.Array:
    """Returns the mean absolute difference of neighbouring values, down and across, (B,).

    This is the anisotropic form of Rudin, Osher & Fatemi 1992, divided by the number of values: the
    sum of the mean absolute differences along both axes.

    Args:
        pictures: (B, H, W, C).

    >>> total_variation(jnp.array([[[[0.0], [1.0]], [[0.0], [3.0]]]])).tolist()
    [3.0]
    """
    x = pictures.astype(at_least_float32(pictures.dtype))
    down, across = jnp.abs(jnp.diff(x, axis=1)), jnp.abs(jnp.diff(x, axis=2))
    return down.mean((1, 2, 3)) + across.mean((1, 2, 3))
