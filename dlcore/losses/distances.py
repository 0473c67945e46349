"""Distances of embeddings, by name. Shapes: A and N embeddings, D their dimensions.

`metrics.embeddings` has the same distances in NumPy, for evaluations.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# Maps x (A, D) and y (N, D) to the distance of each x to each y (A, N).
Distance = Callable[[jax.Array, jax.Array], jax.Array]


def on_unit_sphere(x: jax.Array) -> jax.Array:
    """Returns x / |x| along the last axis; 0 stays 0, and there the gradient passes unchanged.

    >>> on_unit_sphere(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    square = jnp.sum(x * x, -1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(square > 0, square, 1))


def cosine(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns 1 - x.y / (|x| |y|), from 0 to 2; the distance to a vector of zeros is 1."""
    return 1 - jnp.einsum("ad,nd->an", on_unit_sphere(x), on_unit_sphere(y), precision="highest")


def l1(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the sum of |x_i - y_i|, whose gradient where two numbers are equal is 0."""
    return jnp.abs(_differences(x, y)).sum(-1)


def squared_l2(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns |x - y|^2.

    It sums squared differences, because |x|^2 + |y|^2 - 2 x.y would lose all digits for close
    embeddings. The compiler fuses the differences into the sum, so that no array (A, N, D) is made.
    """
    return jnp.square(_differences(x, y)).sum(-1)


def l2(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns |x - y|; its gradient where x = y, which is undefined, is 0."""
    square = squared_l2(x, y)
    apart = square > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)


def _differences(x: jax.Array, y: jax.Array) -> jax.Array:
    return x[:, None] - y[None]


# The distances between embeddings [..., D] by name.
DISTANCES: dict[str, Distance] = {"cosine": cosine, "l1": l1, "l2": l2, "squared_l2": squared_l2}
