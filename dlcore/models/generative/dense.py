"""Dense generators and discriminators of points or images (Goodfellow et al. 2014).

Shapes: B batch, Z values of noise, H features, `...` an example.
"""

import functools
import math

import flax.linen as nn
import jax

from dlcore.models.generative.layers import leaky_relu, normed
from dlcore.nn import BatchNorm, Dense


class DenseGenerator(nn.Module):
    """A generator with hidden layers with rectifiers, and an output layer.

    Attributes:
        shape: the shape of an example.
        hidden: the numbers of units of the hidden layers.
        bounded: whether the output lies in -1..1, by tanh, as images do here.
    """

    shape: tuple[int, ...]
    hidden: tuple[int, ...] = (256, 256)
    bounded: bool = True

    @nn.compact
    def __call__(self, noise: jax.Array, train: bool = False) -> jax.Array:
        """Maps noise (B, Z) to examples (B, ...)."""
        x = noise
        for number, units in enumerate(self.hidden):
            x = nn.relu(Dense(units, name=f"hidden_{number}")(x))
        x = Dense(math.prod(self.shape), name="output")(x)
        x = x.reshape(len(x), *self.shape)
        return nn.tanh(x) if self.bounded else x


class DenseDiscriminator(nn.Module):
    """Hidden layers with leaky rectifiers; the caller turns the last one into a logit.

    Attributes:
        hidden: the numbers of units of the hidden layers.
        norm: the norm of the hidden layers except the first, one of `NORMS`; "spectral" applies to
            all.
    """

    hidden: tuple[int, ...] = (256, 256)
    norm: str = "none"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps examples (B, ...) to features (B, H)."""
        x = x.reshape(len(x), -1)
        for number, units in enumerate(self.hidden):
            batch = BatchNorm(name=f"norm_{number}") if number and self.norm == "batch" else None
            make = functools.partial(Dense, units)
            x = leaky_relu(normed(make, f"hidden_{number}", self.norm, x, train, batch=batch))
        return x
