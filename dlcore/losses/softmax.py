"""The full softmax over a large vocabulary, with its own gradient rule.

Shapes: N positions, D features, V vocabulary.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dlcore import parallel
from dlcore.types import at_least_float32

_PIECES = 16  # of the words, that sums and maxima combine first


def full_softmax(
    hidden: jax.Array, kernel: jax.Array, bias: jax.Array, targets: jax.Array
) -> jax.Array:
    """Returns -log P(target) in nats, float32 [N], with P = softmax(kernel h + bias).

    See `nats_and_log_z`, which gives the logarithm of the normaliser too.

    >>> nats = full_softmax(jnp.zeros((1, 3)), jnp.zeros((4, 3)), jnp.zeros(4), jnp.array([2]))
    >>> jnp.exp(nats).tolist()
    [4.0]
    """
    return nats_and_log_z(hidden, kernel, bias, targets)[0]


@jax.custom_vjp
def nats_and_log_z(
    hidden: jax.Array, kernel: jax.Array, bias: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns -log P(target) in nats and log Z, float32 [N], of P = softmax(kernel h + bias).

    Z is the sum of exp(score) over all words, which a shift of all scores scales while P stays.
    Value and gradient equal those of `optax.softmax_cross_entropy_with_integer_labels` on the same
    scores, in about two thirds of the time: of the arrays [N, V] only exp(score - maximum) is kept,
    and the targets' rows are subtracted from the gradients instead of from such an array.
    It is differentiable in reverse mode only.

    Args:
        hidden: [N, D].
        kernel: [V, D], one row for each word.
        bias: [V].
        targets: int [N] in 0..V-1.
    """
    return _forward(hidden, kernel, bias, targets)[0]


def z_loss(log_z: jax.Array, weight: float) -> jax.Array:
    """Returns weight * (log Z)^2 of each position, a term to be added to -log P(target).

    Scores whose normaliser drifts lose digits in bfloat16 and make large models unstable; the term
    pulls log Z to 0 and changes no P that the model can express (Zoph et al. 2022, ST-MoE, eq. 5;
    Chowdhery et al. 2022, PaLM, section 5, with a weight of 1e-4).

    >>> z_loss(jnp.array([0.0, -2.0]), 0.25).tolist()
    [0.0, 1.0]
    """
    return weight * jnp.square(log_z)


def _forward(
    hidden: jax.Array, kernel: jax.Array, bias: jax.Array, targets: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, ...]]:
    products = _products(hidden, kernel)
    # XLA adds the bias wherever the scores are read, and so writes no array of them.
    row = _row(bias, products)
    largest = _over_words(jnp.maximum, jnp.max, products, row)
    exponentials = jnp.exp(products + row - largest[:, None])
    total = _over_words(jnp.add, jnp.sum, exponentials)
    score = _of_targets(products, row, targets)
    log_z = jnp.log(total) + largest
    return (log_z - score, log_z), (hidden, kernel, bias, exponentials, total, targets)


def _backward(
    saved: tuple[jax.Array, ...], cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    hidden, kernel, bias, exponentials, total, targets = saved
    g, to_log_z = cotangents
    # d log Z / d scores = exponentials / total, and d nats / d scores is that less one_hot(target);
    # each term gives its own product.
    scale = (g + to_log_z) / total
    column = g[:, None]
    to_hidden = scale[:, None] * (exponentials @ kernel) - column * kernel[targets]
    to_kernel = exponentials.T @ (scale[:, None] * hidden)
    to_kernel = to_kernel.at[targets].add(-column * hidden)
    to_bias = (scale @ exponentials).at[targets].add(-g)
    return (
        to_hidden.astype(hidden.dtype),
        to_kernel.astype(kernel.dtype),
        to_bias.astype(bias.dtype),
        None,
    )


nats_and_log_z.defvjp(_forward, _backward)


def full_scores(hidden: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns the scores kernel h + bias of all words, [N, V], float32 at least."""
    products = _products(hidden, kernel)
    return products + _row(bias, products)


def _products(hidden: jax.Array, kernel: jax.Array) -> jax.Array:
    dtype = at_least_float32(hidden.dtype, kernel.dtype)
    return jnp.einsum("nd,vd->nv", hidden, kernel, preferred_element_type=dtype)


def _row(bias: jax.Array, products: jax.Array) -> jax.Array:
    return bias[None].astype(products.dtype)


def _of_targets(products: jax.Array, row: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the scores of the targets, (N,)."""
    if parallel.on_one_cpu(products):
        return jnp.take_along_axis(products, targets[:, None], -1)[:, 0] + row[0, targets]
    # On a mesh that cuts the words, one gather is one sum over devices, and two are two.
    return jnp.take_along_axis(products + row, targets[:, None], -1)[:, 0]


def _over_words(
    combine: Callable[[jax.Array, jax.Array], jax.Array],
    reduce: Callable[..., jax.Array],
    *terms: jax.Array,
) -> jax.Array:
    """Returns the sum or the maximum over the words of the sum of terms [N|1, V], (N,).

    XLA's CPU backend reduces a long last axis by windows of 16 neighbours, which it neither
    computes in vectors nor fuses with what they are made of. So pieces of the axis are combined
    element by element first, and windows are left for a sixteenth. On a mesh that cuts the words,
    pieces would travel between devices.

    Args:
        combine: `jnp.add` or `jnp.maximum`.
        reduce: `jnp.sum` or `jnp.max`.
        *terms: the terms, which are added piece by piece, so that XLA writes no array for the sum.
    """
    if not parallel.on_one_cpu(*terms):
        return reduce(functools.reduce(jnp.add, terms), axis=-1)
    words = terms[0].shape[-1]
    pieces = next(n for n in range(_PIECES, 0, -1) if words % n == 0)
    split = zip(*(jnp.split(term, pieces, axis=-1) for term in terms), strict=True)
    combined = functools.reduce(combine, (functools.reduce(jnp.add, each) for each in split))
    return reduce(combined, axis=-1)
