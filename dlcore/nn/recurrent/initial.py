"""Initial kernels of the cells. Shapes: D inputs, H state features, G outputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def input_kernel(key: jax.Array, inputs: int, outputs: int) -> jax.Array:
    """Draws a kernel (D, G) that keeps the variance of its input (LeCun et al. 1998)."""
    return nn.initializers.lecun_normal()(key, (inputs, outputs))


def recurrent_kernel(key: jax.Array, inputs: int, features: int, gates: int) -> jax.Array:
    """Draws a kernel (inputs, gates * H) of one orthogonal block per gate (Saxe et al. 2013)."""
    orthogonal = nn.initializers.orthogonal()
    blocks = [orthogonal(k, (inputs, features)) for k in jax.random.split(key, gates)]
    return jnp.concatenate(blocks, axis=1)
