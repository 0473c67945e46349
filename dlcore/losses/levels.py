"""Scores between levels, as distributions over levels 0 .. K - 1. Shapes: B batch, K levels."""

import jax
import jax.numpy as jnp

from dlcore.types import at_least_float32


def level_distribution(values: jax.Array, levels: int) -> jax.Array:
    """Returns distributions over the two levels next to each value, with it as mean, [B, K].

    This is the sparse target of Tai et al. 2015 (equation 16).

    Args:
        values: from 0 to K - 1, [B].
        levels: K, at least 2.

    >>> level_distribution(jnp.array([1.25, 2.0]), 3).tolist()
    [[0.0, 0.75, 0.25], [0.0, 0.0, 1.0]]
    """
    away = jnp.abs(values[..., None] - jnp.arange(levels, dtype=values.dtype)[None])
    return jnp.maximum(1 - away, 0)


def level_divergence(logits: jax.Array, values: jax.Array) -> jax.Array:
    """Returns KL(p || softmax(logits)) for the `level_distribution` p of values, in nats, [B].

    Tai et al. 2015 (equation 17).

    Args:
        logits: [B, K].
        values: from 0 to K - 1, [B].
    """
    dtype = at_least_float32(logits.dtype, values.dtype)
    target = level_distribution(values.astype(dtype), logits.shape[-1])
    entropy = jnp.where(target > 0, target * jnp.log(jnp.where(target > 0, target, 1)), 0)
    return (entropy - target * jax.nn.log_softmax(logits.astype(dtype))).sum(-1)
