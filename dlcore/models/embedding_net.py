"""Networks that embed pictures so that distances tell identities apart, and their losses.

The encoder is any image classifier with D outputs in place of its classes. Shapes: B batch, H W
image, C channels, D dimensions of an embedding, K identities to train on.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.errors import pick
from dlcore.losses import (
    DISTANCES,
    MINING,
    PerAnchor,
    arcface,
    batch_pairs,
    contrastive,
    info_nce,
    margin_penalty,
    miner,
    on_unit_sphere,
    pair_cross_entropy,
    prototypical,
    soft_penalty,
    triplet,
)
from dlcore.types import Activations, at_least_float32

# The name of the encoder's module, under which its parameters lie.
ENCODER = "encoder"
WEIGHTED_L1 = "weighted_l1"
# The distances that can be chosen, and those of `losses.DISTANCES` between what the net returns.
PLAIN = {**{name: name for name in DISTANCES}, WEIGHTED_L1: "l1"}


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss that trains an embedding, and its options.

    Attributes:
        loss: one of `LOSSES`.
        distance: one of `PLAIN`.
        margin: the margin of the contrastive, triplet and ArcFace losses.
        mining: the mining of the triplet losses, one of `losses.MINING`.
        temperature: the temperature of InfoNCE.
        scale: the scale of ArcFace.
        shots: the number of shots of prototypical networks.
        identities: K, for ArcFace.
    """

    loss: str
    distance: str = "squared_l2"
    margin: float = 0.2
    mining: str = MINING[0]
    temperature: float = 0.1
    scale: float = 64.0
    shots: int = 1
    identities: int = 0


class EmbeddingNet(nn.Module):
    """An encoder, with the parameters of its distance and of its loss beside it.

    Attributes:
        build: makes the encoder, a classifier of D classes; takes no argument.
        dimensions: D.
        objective: the loss that trains it.
        normalise: whether embeddings are projected onto the unit sphere.
    """

    build: Callable[[], nn.Module]
    dimensions: int
    objective: Objective
    normalise: bool = True

    def setup(self) -> None:
        loss = self.objective.loss
        # The name of the attribute is that of the module.
        setattr(self, ENCODER, self.build())
        if self.objective.distance == WEIGHTED_L1:
            ones = nn.initializers.ones_init()
            self.weights = self.param("weights", ones, (self.dimensions,))
        if loss == "siamese":
            self.offset = self.param("offset", nn.initializers.ones_init(), ())
            self.scale = self.param("scale", nn.initializers.ones_init(), ())
        if loss == "arcface":
            draw = nn.initializers.normal(0.01)
            shape = (self.objective.identities, self.dimensions)
            self.class_weights = self.param("class_weights", draw, shape)

    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps images (B, H, W, C) to embeddings (B, D) and the activations by name.

        With the distance "weighted_l1" the embeddings are multiplied by |w|, so that the L1
        distance between them is the learned one of Koch et al. (2015), sum of w_i |x_i - y_i|. (In
        the paper the weights can have any sign, but a distance cannot have weights below 0.)
        """
        embeddings, activations = getattr(self, ENCODER)(x, train)
        embeddings = embeddings.astype(at_least_float32(embeddings.dtype))
        if self.normalise:
            embeddings = on_unit_sphere(embeddings)
        if self.objective.distance == WEIGHTED_L1:
            embeddings = embeddings * jnp.abs(self.weights).astype(embeddings.dtype)[None]
        return embeddings, {**activations, "embedding": embeddings}

    def losses(
        self, embeddings: jax.Array, labels: jax.Array, weights: jax.Array, key: jax.Array
    ) -> PerAnchor:
        """Returns the losses of the local embeddings among those of the global batch.

        Args:
            embeddings: (B, D), as the net returns them.
            labels: (B,), the identities, below K.
            weights: (B,), 0 for padding.
            key: the key of the step, for mining that draws.

        Raises:
            InputError: for an unknown loss, distance or mining.
        """
        return pick("loss", self.objective.loss, LOSSES)(self, embeddings, labels, weights, key)

    def of_loss(self) -> tuple[jax.Array, ...]:
        """Returns the parameters of the loss, on which the embeddings do not depend."""
        names = ("offset", "scale", "class_weights")
        return tuple(getattr(self, name) for name in names if name in self.variables["params"])


Loss = Callable[[EmbeddingNet, jax.Array, jax.Array, jax.Array, jax.Array], PerAnchor]


def _of_pairs(function: Callable[[EmbeddingNet, Any, jax.Array], PerAnchor]) -> Loss:
    def loss(
        net: EmbeddingNet,
        embeddings: jax.Array,
        labels: jax.Array,
        weights: jax.Array,
        key: jax.Array,
    ) -> PerAnchor:
        distance = DISTANCES[PLAIN[net.objective.distance]]
        return function(net, batch_pairs(embeddings, labels, weights, distance=distance), key)

    return loss


def _triplets(net: EmbeddingNet, pairs: Any, key: jax.Array, penalty: Any) -> PerAnchor:
    mine = miner(net.objective.mining, dimensions=net.dimensions)
    return triplet(pairs, penalty, mine=mine, key=key)


def _arcface(
    net: EmbeddingNet, embeddings: jax.Array, labels: jax.Array, weights: jax.Array, key: jax.Array
) -> PerAnchor:
    return arcface(
        embeddings,
        labels,
        weights,
        class_weights=net.class_weights,
        margin=net.objective.margin,
        scale=net.objective.scale,
    )


def _prototypical(
    net: EmbeddingNet, embeddings: jax.Array, labels: jax.Array, weights: jax.Array, key: jax.Array
) -> PerAnchor:
    distance = DISTANCES[PLAIN[net.objective.distance]]
    shots = net.objective.shots
    return prototypical(embeddings, labels, weights, distance=distance, shots=shots)


LOSSES: dict[str, Loss] = {
    "contrastive": _of_pairs(
        lambda net, pairs, key: contrastive(pairs, margin=net.objective.margin)
    ),
    "siamese": _of_pairs(
        lambda net, pairs, key: pair_cross_entropy(pairs, offset=net.offset, scale=net.scale)
    ),
    "triplet": _of_pairs(
        lambda net, pairs, key: _triplets(net, pairs, key, margin_penalty(net.objective.margin))
    ),
    "soft_margin": _of_pairs(lambda net, pairs, key: _triplets(net, pairs, key, soft_penalty)),
    "info_nce": _of_pairs(
        lambda net, pairs, key: info_nce(pairs, temperature=net.objective.temperature)
    ),
    "arcface": _arcface,
    "prototypical": _prototypical,
}
