"""Losses of the pairs in a batch: contrastive, cross-entropy of a Siamese network, InfoNCE.

Every local example is an anchor; its partners are all examples of the global batch, even if that
lies on several devices. Shapes: A local anchors, N examples of the global batch, D dimensions of an
embedding.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlcore.losses.distances import Distance
from dlcore.parallel import positions, sum_over_devices
from dlcore.types import Rows, at_least_float32


class PerAnchor(NamedTuple):
    """The losses of anchors; `Mean.of(*found)` is the loss of the batch, in every layout.

    Attributes:
        losses: (A,), the loss of each anchor.
        weights: (A,), 0 for anchors that lack the partners that the loss needs; else 1 or the
            number of terms that the loss is the mean of, depending on the loss.
    """

    losses: jax.Array
    weights: jax.Array


class Examples(NamedTuple):
    """Embedded examples of a batch: either the local ones or all of them.

    Attributes:
        embeddings: (N, D), float32 at least.
        labels: (N,), the identities.
        real: (N,), false for padding.
        positions: (N,), the places in the global batch.
    """

    embeddings: jax.Array
    labels: jax.Array
    real: jax.Array
    positions: jax.Array

    def of_one_identity(self, others: "Examples") -> jax.Array:
        """Returns which pairs are real and of one identity, (N, M) for M others."""
        return self._real(others) & (self.labels[:, None] == others.labels[None])

    def of_two_identities(self, others: "Examples") -> jax.Array:
        """Returns which pairs are real and of two identities, (N, M) for M others."""
        return self._real(others) & (self.labels[:, None] != others.labels[None])

    def _real(self, others: "Examples") -> jax.Array:
        return self.real[:, None] & others.real[None]

    def behind(self, others: "Examples") -> jax.Array:
        """Returns which examples come after which others in the global batch, (N, M)."""
        return self.positions[:, None] > others.positions[None]


class Pairs(NamedTuple):
    """The pairs of the local anchors with all examples of the global batch.

    Attributes:
        distances: (A, N), the distance of each pair.
        positive: (A, N), true where the two are of one identity, but not the same example.
        negative: (A, N), true where they are of two identities.
        positions: (A,), the places of the anchors in the global batch.
    """

    distances: jax.Array
    positive: jax.Array
    negative: jax.Array
    positions: jax.Array


def batch_examples(
    embeddings: jax.Array, labels: jax.Array, weights: jax.Array
) -> tuple[Examples, Examples]:
    """Returns the local examples and those of the global batch, with gradients to all of them.

    Under gradient accumulation, the micro-batch takes the place of the global batch.

    Args:
        embeddings: (A, D).
        labels: (A,), the identities.
        weights: (A,), 0 for padding.
    """
    embeddings = embeddings.astype(at_least_float32(embeddings.dtype))
    here = Examples(embeddings, labels, weights > 0, positions(len(labels)))
    return here, sum_over_devices(Rows(here, weights)).values


def batch_pairs(
    embeddings: jax.Array, labels: jax.Array, weights: jax.Array, *, distance: Distance
) -> Pairs:
    """Returns the pairs of a batch; see `batch_examples`.

    Args:
        embeddings: (A, D).
        labels: (A,), the identities.
        weights: (A,), 0 for padding.
        distance: a distance of `losses.DISTANCES`.

    >>> from dlcore.losses.distances import l2
    >>> pairs = batch_pairs(jnp.array([[0.0], [1.0], [3.0]]), jnp.array([5, 5, 7]), jnp.ones(3),
    ...                     distance=l2)
    >>> pairs.distances[0].tolist(), pairs.positive[0].tolist(), pairs.negative[0].tolist()
    ([0.0, 1.0, 3.0], [False, True, False], [False, False, True])
    """
    here, everywhere = batch_examples(embeddings, labels, weights)
    itself = here.positions[:, None] == everywhere.positions[None]
    return Pairs(
        distance(here.embeddings, everywhere.embeddings),
        here.of_one_identity(everywhere) & ~itself,
        here.of_two_identities(everywhere),
        here.positions,
    )


def contrastive(pairs: Pairs, *, margin: float) -> PerAnchor:
    """Returns d^2 / 2 of positive pairs and max(margin - d, 0)^2 / 2 of negative ones.

    The source is Hadsell et al. (2006, eq. 4), with d the L2 distance. Positive and negative pairs
    have half the weight each, as if there were equally many of both kinds; a batch has many more
    negative ones. An anchor that lacks either kind has weight 0.

    >>> pairs = Pairs(jnp.array([[0.0, 2.0, 0.5]]), jnp.array([[False, True, False]]),
    ...               jnp.array([[False, False, True]]), jnp.array([0]))
    >>> contrastive(pairs, margin=1.0).losses.tolist()  # (2^2 / 2 + 0.5^2 / 2) / 2
    [1.0625]
    """
    d = pairs.distances
    return _balanced(pairs, d**2 / 2, jnp.maximum(margin - d, 0) ** 2 / 2)


def pair_cross_entropy(pairs: Pairs, *, offset: jax.Array, scale: jax.Array) -> PerAnchor:
    """Returns -log p of positive pairs and -log(1 - p) of negative ones, in nats.

    p = sigmoid(offset - scale d) is the probability that the two are of one identity, as a Siamese
    network learns it (Koch et al. 2015, section 3). Both kinds count half, see `contrastive`.

    Args:
        pairs: the pairs of a batch.
        offset: a learned scalar.
        scale: a learned scalar.
    """
    d = pairs.distances
    logits = offset.astype(d.dtype) - scale.astype(d.dtype) * d
    return _balanced(pairs, jax.nn.softplus(-logits), jax.nn.softplus(logits))


def info_nce(pairs: Pairs, *, temperature: float) -> PerAnchor:
    """Returns -log P of the positive against all negatives, P = softmax(-d / temperature).

    The loss is the mean of one term for each positive, in nats. It is InfoNCE (van den Oord et al.
    2018, eq. 4) supervised by labels. It is also the N-pair loss (Sohn 2016, eq. 6) with the
    similarity -d / temperature in place of the inner product:
    log(1 + sum over negatives of exp((d_p - d_n) / temperature)). Other positives are not among the
    negatives. The weight is the number of positives.

    >>> pairs = Pairs(jnp.zeros((1, 4)), jnp.array([[False, True, False, False]]),
    ...               jnp.array([[False, False, True, True]]), jnp.array([0]))
    >>> jnp.exp(info_nce(pairs, temperature=0.1).losses).round(4).tolist()
    [3.0]
    """
    scores = -pairs.distances / temperature
    # A finite number, so that an anchor without negatives has a gradient that is a number.
    lowest = jnp.finfo(scores.dtype).min / 2
    against = jax.nn.logsumexp(jnp.where(pairs.negative, scores, lowest), -1, keepdims=True)
    terms = jax.nn.softplus(jnp.where(pairs.positive, against - scores, 0))
    count = pairs.positive.sum(-1)
    counted = jnp.where(pairs.negative.any(-1), count, 0)
    return PerAnchor(mean_where(terms, pairs.positive), counted.astype(terms.dtype))


def mean_where(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean over the last axis of the values where a mask is true; 0 if there is none.

    >>> mean_where(jnp.array([1.0, 3.0, 8.0]), jnp.array([True, True, False])).tolist()
    2.0
    """
    count = jnp.maximum(mask.sum(-1), 1).astype(values.dtype)
    return jnp.where(mask, values, 0).sum(-1) / count


def _balanced(pairs: Pairs, of_positive: jax.Array, of_negative: jax.Array) -> PerAnchor:
    losses = (mean_where(of_positive, pairs.positive) + mean_where(of_negative, pairs.negative)) / 2
    both = pairs.positive.any(-1) & pairs.negative.any(-1)
    return PerAnchor(losses, both.astype(losses.dtype))
