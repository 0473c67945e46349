"""Losses of pictures and texts in one space, where similarity is an inner product.

An example of a batch is a picture with its text. Each picture looks for its own text among all
texts of the global batch, even if that lies on several devices, and each text looks for its own
picture. Other examples with the same picture or the same text are not negatives. Shapes: A local
examples, N examples of the global batch, D dimensions of an embedding.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlcore.losses.pairs import PerAnchor
from dlcore.parallel import sum_over_devices
from dlcore.types import Rows, at_least_float32


class Matches(NamedTuple):
    """The similarities of the local examples with those of the global batch.

    Attributes:
        own: (A,), the similarities of each picture and its own text.
        to_texts: (A, N), the similarities of the local pictures and all texts.
        to_pictures: (A, N), the similarities of the local texts and all pictures.
        negative: (A, N), true where two examples differ in picture and in text; False for padding.
        real: (A,), false for padding.
    """

    own: jax.Array
    to_texts: jax.Array
    to_pictures: jax.Array
    negative: jax.Array
    real: jax.Array


# Maps the similarities of the own partners (A,) and of all (A, N), and which of these are of
# negatives (A, N), to losses (A,).
Direction = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def batch_matches(
    pictures: jax.Array,
    texts: jax.Array,
    picture_ids: jax.Array,
    text_ids: jax.Array,
    weights: jax.Array,
) -> Matches:
    """Returns the similarities of a batch, with gradients to the examples of all devices.

    Args:
        pictures: (A, D), on the unit sphere if the similarity is to be the cosine.
        texts: (A, D), likewise.
        picture_ids: (A,), equal for examples of the same picture.
        text_ids: (A,), equal for examples with the same text.
        weights: (A,), 0 for padding.

    >>> found = batch_matches(jnp.eye(3), jnp.eye(3), jnp.array([1, 2, 2]), jnp.arange(3),
    ...                       jnp.ones(3))
    >>> found.own.tolist(), found.negative.astype(int).tolist()
    ([1.0, 1.0, 1.0], [[0, 1, 1], [1, 0, 0], [1, 0, 0]])
    """
    kind = at_least_float32(pictures.dtype, texts.dtype)
    pictures, texts = pictures.astype(kind), texts.astype(kind)
    here = pictures, texts, picture_ids, text_ids
    everywhere = sum_over_devices(Rows(here, weights))
    all_pictures, all_texts, all_picture_ids, all_text_ids = everywhere.values
    alike = (picture_ids[:, None] == all_picture_ids[None]) | (
        text_ids[:, None] == all_text_ids[None]
    )
    real = weights > 0
    return Matches(
        (pictures * texts).sum(-1),
        jnp.matmul(pictures, all_texts.T, precision="highest"),
        jnp.matmul(texts, all_pictures.T, precision="highest"),
        real[:, None] & (everywhere.weight > 0)[None] & ~alike,
        real,
    )


def summed_hinges(matches: Matches, *, margin: float) -> PerAnchor:
    """Returns the sum over negatives of max(0, margin - s_own + s), in both directions.

    The source is Kiros et al. (2014, eq. 8), with the cosine as s; Faghri et al. (2018, eq. 5) call
    it the sum of hinges. An example without negatives has loss 0.

    >>> s = jnp.array([[1.0, 0.5], [0.75, 0.75]])
    >>> ask = Matches(jnp.diagonal(s), s, s.T, ~jnp.eye(2, dtype=bool), jnp.ones(2, bool))
    >>> summed_hinges(ask, margin=0.5).losses.tolist()  # 0 + 0.25 and 0.5 + 0.25
    [0.25, 0.75]
    """

    def loss(own: jax.Array, scores: jax.Array, negative: jax.Array) -> jax.Array:
        return jnp.where(negative, jnp.maximum(margin - own[:, None] + scores, 0), 0).sum(-1)

    return _both_ways(matches, loss)


def hardest_hinge(matches: Matches, *, margin: float) -> PerAnchor:
    """Returns max(0, margin - s_own + s) for the hardest negative, in both directions.

    The source is Faghri et al. (2018, eq. 6), VSE++: the hardest negative is the one in the batch
    with the greatest similarity. The losses of both directions are added. An example without
    negatives has loss 0.

    >>> s = jnp.array([[1.0, 0.5], [0.75, 0.75]])
    >>> ask = Matches(jnp.diagonal(s), s, s.T, ~jnp.eye(2, dtype=bool), jnp.ones(2, bool))
    >>> hardest_hinge(ask, margin=0.5).losses.tolist()
    [0.25, 0.75]
    """

    def loss(own: jax.Array, scores: jax.Array, negative: jax.Array) -> jax.Array:
        hinges = jnp.where(negative, margin - own[:, None] + scores, 0)
        return jnp.maximum(hinges.max(-1), 0)

    return _both_ways(matches, loss)


def matching_cross_entropy(matches: Matches, *, scale: jax.Array | float) -> PerAnchor:
    """Returns -log P of the own partner against all negatives, as the mean of both directions.

    P = softmax(scale s), in nats (Radford et al. 2021, figure 3, where the scale is one over the
    temperature). An example without negatives has loss 0.

    >>> s = jnp.zeros((2, 2))
    >>> ask = Matches(jnp.diagonal(s), s, s.T, ~jnp.eye(2, dtype=bool), jnp.ones(2, bool))
    >>> jnp.exp(matching_cross_entropy(ask, scale=10.0).losses).round(4).tolist()
    [2.0, 2.0]
    """

    def loss(own: jax.Array, scores: jax.Array, negative: jax.Array) -> jax.Array:
        factor = jnp.asarray(scale, scores.dtype)
        # A finite number, so that an example without negatives has a gradient that is a number.
        lowest = jnp.finfo(scores.dtype).min / 2
        against = jax.nn.logsumexp(jnp.where(negative, factor * scores, lowest), -1)
        return jax.nn.softplus(against - factor * own) / 2

    return _both_ways(matches, loss)


def _both_ways(matches: Matches, loss: Direction) -> PerAnchor:
    losses = sum(
        loss(matches.own, scores, matches.negative)
        for scores in (matches.to_texts, matches.to_pictures)
    )
    return PerAnchor(jnp.asarray(losses), matches.real.astype(matches.own.dtype))
