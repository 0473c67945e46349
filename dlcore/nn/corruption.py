"""Noise that denoising autoencoders learn to remove. Shapes: B examples, `...` the axes of one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dlcore.errors import pick
from dlcore.parallel import row_keys


def _masking(key: jax.Array, x: jax.Array, amount: float) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key, amount, x.shape), jnp.zeros_like(x), x)


def _gaussian(key: jax.Array, x: jax.Array, amount: float) -> jax.Array:
    return x + amount * jax.random.normal(key, x.shape, x.dtype)


def _salt_and_pepper(key: jax.Array, x: jax.Array, amount: float) -> jax.Array:
    uniform = jax.random.uniform(key, x.shape)
    pepper = jnp.where(uniform < amount / 2, jnp.zeros_like(x), x)
    return jnp.where(uniform >= 1 - amount / 2, jnp.ones_like(x), pepper)


CORRUPTIONS: dict[str, Callable[[jax.Array, jax.Array, float], jax.Array]] = {
    "masking": _masking,
    "gaussian": _gaussian,
    "salt_and_pepper": _salt_and_pepper,
}


def corrupt(kind: str, key: jax.Array, x: jax.Array, amount: float) -> jax.Array:
    """Returns values with noise (Vincent et al. 2010, section 3.3).

    - "masking" sets a share `amount` of them to 0.
    - "gaussian" adds normal noise of the standard deviation `amount`.
    - "salt_and_pepper" sets a share `amount` of them to 0 or 1, with equal probability.

    The noise of an example depends on the key and on its position in the global batch alone.

    Args:
        kind: one of `CORRUPTIONS`.
        key: the key of the noise.
        x: the values (B, ...), whose extremes are 0 and 1.
        amount: 0 or more; at most 1 where it is a share.

    Raises:
        InputError: for an unknown kind.

    >>> corrupt("masking", jax.random.key(0), jnp.ones((1, 3)), 1.0).tolist()
    [[0.0, 0.0, 0.0]]
    """
    one = pick("corruption", kind, CORRUPTIONS)
    return jax.vmap(lambda own, row: one(own, row, amount))(row_keys(key, len(x)), x)
