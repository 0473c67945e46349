"""Losses of an embedding against identities: ArcFace and prototypical networks.

Shapes: A local examples, N examples of the global batch, K identities to train on, D dimensions of
an embedding.
"""

import math

import jax
import jax.numpy as jnp
import optax

from dlcore.losses.distances import Distance, on_unit_sphere
from dlcore.losses.pairs import PerAnchor, batch_examples
from dlcore.types import at_least_float32


def arcface(
    embeddings: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    *,
    class_weights: jax.Array,
    margin: float,
    scale: float,
) -> PerAnchor:
    """Returns the cross-entropy of softmax(scale cos theta) with a margin on the true angle.

    theta_k is the angle between an embedding and the weights of identity k; for the true identity
    the cosine of theta + margin is taken (Deng et al. 2019, eq. 3). Beyond pi - margin, where this
    cosine would rise again, it is cos theta - margin sin margin, as in the authors' program.

    Args:
        embeddings: (A, D); only their direction counts.
        labels: (A,) in 0..K-1.
        weights: (A,), 0 for padding.
        class_weights: (K, D), parameters; only their direction counts.
        margin: the margin in radians, 0.5 in the paper.
        scale: the factor of the cosines, 64 in the paper.

    >>> found = arcface(jnp.eye(2), jnp.array([0, 1]), jnp.ones(2), class_weights=jnp.eye(2),
    ...                 margin=0.5, scale=1.0)
    >>> expected = math.log(1 + math.exp(-math.cos(0.5)))
    >>> bool(abs(found.losses[0] - expected) < 1e-6)
    True
    """
    kind = at_least_float32(embeddings.dtype)
    x = on_unit_sphere(embeddings.astype(kind))
    cosines = jnp.matmul(x, on_unit_sphere(class_weights.astype(kind)).T, precision="highest")
    own = jnp.take_along_axis(cosines, labels[:, None], -1)
    inside = jnp.abs(own) < 1  # The derivative of the sine at its ends is infinite.
    sine = jnp.where(inside, jnp.sqrt(jnp.where(inside, 1 - own**2, 1)), 0)
    farther = jnp.where(
        own > -math.cos(margin),
        own * math.cos(margin) - sine * math.sin(margin),
        own - margin * math.sin(margin),
    )
    is_own = jax.nn.one_hot(labels, cosines.shape[-1], dtype=bool)
    logits = scale * jnp.where(is_own, farther, cosines)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return PerAnchor(losses, (weights > 0).astype(kind))


def prototypical(
    embeddings: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    *,
    distance: Distance,
    shots: int,
) -> PerAnchor:
    """Returns -log P of the true identity, P = softmax(-distance to the prototypes), in nats.

    The first examples of each identity in the global batch are its support, whose mean is its
    prototype; the others are queries, the anchors that count (Snell et al. 2017, eq. 1 and 2).

    Args:
        embeddings: (A, D).
        labels: (A,), the identities.
        weights: (A,), 0 for padding.
        distance: a distance of `losses.DISTANCES`; squared L2 in the paper.
        shots: the number of examples of a support.

    >>> from dlcore.losses.distances import squared_l2
    >>> x = jnp.array([[0.0], [1.0], [0.0], [0.0]])
    >>> found = prototypical(x, jnp.array([3, 9, 3, 9]), jnp.ones(4), distance=squared_l2, shots=1)
    >>> found.weights.tolist(), (jnp.exp(-found.losses[2]) / jnp.exp(-found.losses[3])).tolist()
    ([0.0, 0.0, 1.0, 1.0], 2.7182817459106445)
    """
    here, everywhere = batch_examples(embeddings, labels, weights)
    same = everywhere.of_one_identity(everywhere)
    rank = (same & everywhere.behind(everywhere)).sum(-1)  # within its identity
    members = (same & (rank < shots)[None]).astype(everywhere.embeddings.dtype)
    count = jnp.maximum(members.sum(-1, keepdims=True), 1)
    prototypes = jnp.matmul(members / count, everywhere.embeddings, precision="highest")
    # The first example of an identity stands for it.
    first = (everywhere.real & (rank == 0))[None]
    scores = -distance(here.embeddings, prototypes)
    lowest = jnp.finfo(scores.dtype).min / 2
    total = jax.nn.logsumexp(jnp.where(first, scores, lowest), -1)
    own = here.of_one_identity(everywhere)
    queries = (own & here.behind(everywhere)).sum(-1) >= shots
    losses = total - jnp.where(own & first, scores, 0).sum(-1)
    return PerAnchor(jnp.where(queries, losses, 0), queries.astype(losses.dtype))
