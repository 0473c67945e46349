"""Two towers, one for pictures and one for texts, that embed both in one space.

The tower of pictures is any image classifier with D outputs in place of its classes; the tower of
texts encodes the words, pools them and projects them. Shapes: B batch, H W image, C channels, T
tokens, D dimensions of an embedding.
"""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.errors import pick
from dlcore.losses import (
    Matches,
    PerAnchor,
    hardest_hinge,
    matching_cross_entropy,
    on_unit_sphere,
    summed_hinges,
)
from dlcore.models.text.pooling import pooled
from dlcore.nn import Dense, Dropout
from dlcore.types import Activations, at_least_float32

# The name of the module of pictures, under which its parameters lie.
PICTURES = "pictures"
# The factor of the cosines at first and at most (Radford et al. 2021, section 2.5).
FIRST_SCALE, LARGEST_SCALE = 1 / 0.07, 100.0


@dataclasses.dataclass(frozen=True)
class Matching:
    """The loss that brings pictures and texts together, and its options.

    Attributes:
        loss: one of `MATCHING_LOSSES`.
        margin: the margin of the hinges.
    """

    loss: str
    margin: float = 0.2


class TextTower(nn.Module):
    """A tower of texts: an encoder, pooling, dropout and a linear layer.

    Attributes:
        encoder: maps tokens and lengths to features at each step, see `RecurrentEncoder`.
        features: D.
        pooling: one of `POOLINGS`.
        directions: the encoder's merge of both directions; None for one direction.
        dropout: the share of the pooled values that is dropped.
    """

    encoder: nn.Module
    features: int
    pooling: str = "mean"
    directions: str | None = None
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, tokens: jax.Array, lengths: jax.Array, train: bool = False
    ) -> tuple[jax.Array, Activations]:
        """Maps tokens int [B, T] and lengths int [B] to vectors [B, D] and activations by name.

        Raises:
            InputError: as for `pooled`.
        """
        x, activations = self.encoder(tokens, lengths, train)
        x, of_pooling = pooled(self.pooling, x, lengths, directions=self.directions)
        x = Dropout(self.dropout)(x, train)
        x = Dense(self.features, name="output")(x)
        return x, {**activations, **of_pooling, "output": x}


class TwoTowers(nn.Module):
    """The towers of pictures and texts, and the parameter of their loss.

    Attributes:
        build: makes the tower of pictures, a classifier of D classes; takes no argument.
        texts: the tower of texts.
        matching: the loss that trains them.
    """

    build: Callable[[], nn.Module]
    texts: TextTower
    matching: Matching

    def setup(self) -> None:
        # The name of the attribute is that of the module.
        setattr(self, PICTURES, self.build())
        if self.matching.loss == "infonce":
            first = nn.initializers.constant(math.log(FIRST_SCALE))
            self.log_scale = self.param("log_scale", first, ())

    def of_pictures(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps images (B, H, W, C) to embeddings (B, D) of length 1, and activations by name."""
        x, activations = getattr(self, PICTURES)(images, train)
        return _embedded(x), activations

    def of_texts(
        self, tokens: jax.Array, lengths: jax.Array, train: bool = False
    ) -> tuple[jax.Array, Activations]:
        """Maps tokens int (B, T) of lengths int (B,) to embeddings (B, D) of length 1."""
        x, activations = self.texts(tokens, lengths, train)
        return _embedded(x), activations

    def __call__(
        self, images: jax.Array, tokens: jax.Array, lengths: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Maps images and texts to the embeddings of both, (B, D) each."""
        return self.of_pictures(images, train)[0], self.of_texts(tokens, lengths, train)[0]

    def losses(self, matches: Matches) -> PerAnchor:
        """Returns the losses of the local examples among those of the global batch.

        Raises:
            InputError: for an unknown loss.
        """
        return pick("loss", self.matching.loss, MATCHING_LOSSES)(self, matches)

    def of_loss(self) -> tuple[jax.Array, ...]:
        """Returns the parameters of the loss, on which the embeddings do not depend."""
        return (self.log_scale,) if self.matching.loss == "infonce" else ()

    def scale(self) -> jax.Array:
        """Returns the factor of the cosines in the softmax: one over its temperature."""
        scale = self.log_scale.astype(at_least_float32(self.log_scale.dtype))
        return jnp.exp(jnp.minimum(scale, math.log(LARGEST_SCALE)))


MATCHING_LOSSES: dict[str, Callable[[TwoTowers, Matches], PerAnchor]] = {
    "vse0": lambda net, matches: summed_hinges(matches, margin=net.matching.margin),
    "vse++": lambda net, matches: hardest_hinge(matches, margin=net.matching.margin),
    "infonce": lambda net, matches: matching_cross_entropy(matches, scale=net.scale()),
}


def _embedded(x: jax.Array) -> jax.Array:
    return on_unit_sphere(x.astype(at_least_float32(x.dtype)))
