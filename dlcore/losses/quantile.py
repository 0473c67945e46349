"""The loss whose minimum is a quantile."""

import jax
import jax.numpy as jnp

from dlcore.types import at_least_float32


def pinball(predictions: jax.Array, targets: jax.Array, quantiles: jax.Array) -> jax.Array:
    """Returns max(q (y - p), (q - 1) (y - p)) for each quantile, the pinball or check loss.

    Its expectation is least where P(y <= p) = q (Koenker & Bassett 1978). For q = 1/2 it is half
    the absolute error.

    Args:
        predictions: p [..., Q].
        targets: y [...].
        quantiles: q [Q], in 0..1.

    Returns:
        [..., Q], float32 at least.

    >>> pinball(jnp.array([[1.0, 1.0]]), jnp.array([3.0]), jnp.array([0.9, 0.5])).round(4).tolist()
    [[1.7999999523162842, 1.0]]
    """
    dtype = at_least_float32(predictions.dtype, targets.dtype)
    error = targets.astype(dtype)[..., None] - predictions.astype(dtype)
    q = quantiles.astype(dtype).reshape((1,) * (error.ndim - 1) + quantiles.shape)
    return jnp.maximum(q * error, (q - 1) * error)
