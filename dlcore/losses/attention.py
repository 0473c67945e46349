"""Penalties of attention. Shapes: B batch, T steps, L positions."""

import jax
import jax.numpy as jnp

from dlcore.types import at_least_float32


def doubly_stochastic(weights: jax.Array, real: jax.Array) -> jax.Array:
    """Returns the sum over the positions of (1 - the attention from all steps together)^2, [B].

    It makes a caption look at every position once (Xu et al. 2015, eq. 14, without its factor).

    Args:
        weights: [B, T, L], which sum to 1 over the positions.
        real: bool [B, T], false at padding.

    >>> doubly_stochastic(jnp.array([[[0.5, 0.5], [1.0, 0.0]]]), jnp.ones((1, 2), bool)).tolist()
    [0.5]
    """
    weights = weights.astype(at_least_float32(weights.dtype))
    looked = jnp.where(real[..., None], weights, 0).sum(1)
    return ((1 - looked) ** 2).sum(-1)
