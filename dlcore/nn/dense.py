"""Products of rows with a matrix, and the dense layer. Shapes: C channels, K outputs.

The gradient with respect to the matrix sums over all axes of the input except the last. Where these
are several, XLA's CPU backend first merges them by a transposing copy, into which it fuses the
layers that the gradient came through, so that they are computed once more, element by element. Here
the rows lie along one axis, so that nothing is copied.
"""

from typing import Any

import flax.linen as nn
import jax
from flax.typing import DotGeneralT
from jax import lax


def multiply_rows(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns x @ kernel, (..., K), for x (..., C) and kernel (C, K).

    >>> multiply_rows(jax.numpy.ones((2, 3, 4)), jax.numpy.ones((4, 5))).shape
    (2, 3, 5)
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)


def sum_outer(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the sum of the outer products of all rows of x (..., C) and y (..., K), (C, K).

    >>> sum_outer(jax.numpy.ones((2, 3, 4)), jax.numpy.ones((2, 3, 5)))[0, 0].item()
    6.0
    """
    return x.reshape(-1, x.shape[-1]).T @ y.reshape(-1, y.shape[-1])


def _dot_general(x: jax.Array, kernel: jax.Array, dimensions: Any, **options: Any) -> jax.Array:
    """Calls `multiply_rows` in the form that Flax's layer needs, whose dimensions are fixed."""
    del dimensions
    rows = x.reshape(-1, x.shape[-1])
    y = lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), **options)
    return y.reshape(*x.shape[:-1], -1)


class Dense(nn.Dense):
    """A dense layer, y = x W + b, with the parameters `kernel` (C, K) and `bias` (K,).

    It is Flax's own layer, except that it multiplies rows by `multiply_rows`.
    """

    dot_general: DotGeneralT | None = _dot_general
