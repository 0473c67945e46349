"""The two players of a generative adversarial network, with or without class conditions.

Shapes: B batch, Z values of noise, E of a class, F features, `...` an example.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.errors import InputError
from dlcore.models.generative.layers import leaky_relu, normed
from dlcore.nn import Dense
from dlcore.nn.embedding import Embedding

# How the discriminator learns of the class: as further inputs of its last layer (Mirza & Osindero
# 2014), or by the product of a vector of the class with its features (Miyato & Koyama 2018, eq. 3).
CONDITIONS = ("embedding", "projection")


class Generator(nn.Module):
    """A generator, which draws examples from noise and, if conditioned, a vector of the class.

    Attributes:
        body: maps (noise (B, Z) or (B, Z + E), train) to examples (B, ...).
        num_classes: the number of classes; 0 for a generator without classes.
        class_size: E.
    """

    body: nn.Module
    num_classes: int = 0
    class_size: int = 16

    @nn.compact
    def __call__(self, noise: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        """Maps noise (B, Z) and labels int (B,) to examples (B, ...)."""
        if self.num_classes:
            table = Embedding(self.num_classes, self.class_size, name="classes")
            of_class = table(labels[:, None])[:, 0].astype(noise.dtype)
            noise = jnp.concatenate([noise, of_class], axis=-1)
        x: jax.Array = self.body(noise, train)
        return x


class Discriminator(nn.Module):
    """A discriminator: the larger its logit, the more real an example looks.

    Attributes:
        body: maps (examples, train) to features (B, F).
        norm: the norm of its own layers: "spectral"; any other leaves them as they are.
        condition: one of `CONDITIONS`; None for a discriminator without classes.
        num_classes: the number of classes.
    """

    body: nn.Module
    norm: str = "none"
    condition: str | None = None
    num_classes: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        """Maps examples (B, ...) and labels int (B,) to logits (B,)."""
        h = self.body(x, train)
        classes = jax.nn.one_hot(labels, self.num_classes, dtype=h.dtype)
        if self.condition == "embedding":
            h = jnp.concatenate([h, classes], axis=-1)
            joint = functools.partial(Dense, h.shape[-1] // 2)
            h = leaky_relu(normed(joint, "joint", self.norm, h, train))
        logits = normed(functools.partial(Dense, 1), "output", self.norm, h, train)[:, 0]
        if self.condition == "projection":
            table = functools.partial(Dense, h.shape[-1], use_bias=False)
            logits = logits + (normed(table, "classes", self.norm, classes, train) * h).sum(-1)
        return logits


def require_same_sizes(drawn: jax.Array, real: jax.Array) -> None:
    """Checks that drawn and real examples (B, ...) have the same size.

    Raises:
        InputError: when the generator draws examples of another size.
    """
    if drawn.shape[1:] != real.shape[1:]:
        sizes = ["x".join(map(str, each.shape[1:])) for each in (drawn, real)]
        raise InputError(
            f"the generator draws examples of {sizes[0]}, but the discriminator is given real ones "
            f"of {sizes[1]}; build both for one size, or resize the images"
        )


class Adversaries(nn.Module):
    """Both players, whose variables are under their names.

    Attributes:
        generator: a `Generator`.
        discriminator: a `Discriminator`.
    """

    generator: Generator
    discriminator: Discriminator

    def __call__(self, noise: jax.Array, labels: jax.Array) -> jax.Array:
        """Maps noise (B, Z) and labels int (B,) to the logits (B,) of the drawn examples."""
        return self.discriminate(self.generate(noise, labels), labels)

    def generate(self, noise: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        """Calls the generator; see `Generator`."""
        x: jax.Array = self.generator(noise, labels, train)
        return x

    def discriminate(self, x: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        """Calls the discriminator; see `Discriminator`."""
        logits: jax.Array = self.discriminator(x, labels, train)
        return logits
