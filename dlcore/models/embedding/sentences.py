"""Vectors of sentences as weighted means of word vectors.

SIF, smooth inverse frequency (Arora et al. 2017, algorithm 1), weights a word w by a / (a + p(w))
and removes the direction that all sentences have in common.

Shapes: V words, n sentences, L words of the longest, D features.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import InputError


def sif_weights(counts: np.ndarray, *, a: float = 1e-3) -> np.ndarray:
    """Returns the weight of each word, a / (a + p(w)), float32 [V].

    Args:
        counts: how often each word occurs, [V], some of them positive.
        a: about the frequency of words whose weight is a half.

    Raises:
        InputError: when a is not positive.

    >>> sif_weights(np.array([3, 1]), a=0.25).tolist()
    [0.25, 0.5]
    """
    if not a > 0:
        raise InputError(f"a={a} of SIF gives words no weight; give a number above 0, such as 1e-3")
    return (a / (a + counts / np.sum(counts))).astype(np.float32)


def mean_vectors(
    table: jax.Array, words: jax.Array, weights: jax.Array | np.ndarray | None = None
) -> jax.Array:
    """Returns the weighted means of the vectors of sentences' words, [n, D].

    The sum is divided by the number of words, not by the sum of their weights, as in the paper. The
    vector of a sentence without words is 0.

    Args:
        table: the vectors of words, [V, D].
        words: int [n, L], -1 at padding and at words without a vector.
        weights: the weights of words, [V]; None for 1.

    >>> table = jnp.array([[1.0, 0.0], [0.0, 4.0]])
    >>> mean_vectors(table, jnp.array([[0, 1, -1]]), jnp.array([1.0, 0.5])).tolist()
    [[0.5, 1.0]]
    """
    real, rows = words >= 0, jnp.maximum(words, 0)
    each = real.astype(table.dtype)
    if weights is not None:
        each = each * jnp.asarray(weights, table.dtype)[rows]
    summed = jnp.einsum("nl,nld->nd", each, table[rows])
    return summed / jnp.maximum(real.sum(-1, keepdims=True), 1).astype(table.dtype)


def common_direction(vectors: jax.Array) -> jax.Array:
    """Returns the first right singular vector of vectors [n, D], a unit vector [D].

    The vectors are not centred, as in the paper's program, because the mean is a part of the common
    direction.
    """
    _, directions = jnp.linalg.eigh(jnp.einsum("nd,ne->de", vectors, vectors))
    return directions[:, -1]


def without_direction(vectors: jax.Array, direction: jax.Array) -> jax.Array:
    """Returns vectors [..., D] without their parts along a unit vector [D].

    >>> without_direction(jnp.array([[3.0, 4.0]]), jnp.array([1.0, 0.0])).tolist()
    [[0.0, 4.0]]
    """
    along = jnp.einsum("...d,d->...", vectors, direction)[..., None]
    return vectors - along * jnp.expand_dims(direction, range(vectors.ndim - 1))
