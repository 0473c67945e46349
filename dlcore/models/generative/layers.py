"""Parts of layers that discriminators share. Shapes: B batch, C channels."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax

from dlcore.nn import BatchNorm, SpectralNorm

# Of the discriminator's layers.
NORMS = ("none", "batch", "spectral")
# Radford et al. 2016, section 3.
SLOPE = 0.2
leaky_relu = functools.partial(jax.nn.leaky_relu, negative_slope=SLOPE)


def normed(
    make: Callable[..., nn.Module],
    name: str,
    norm: str,
    x: jax.Array,
    train: bool,
    *,
    batch: BatchNorm | None = None,
) -> jax.Array:
    """Returns the output (B, ..., C) of a layer with its norm.

    Args:
        make: makes the layer, such as `Dense` with its options.
        name: the name of the layer.
        norm: one of `NORMS`.
        x: the input of the layer.
        train: whether to use the statistics of the batch and iterate the power method.
        batch: the normalisation after the layer, if there is any.
    """
    if norm == "spectral":
        y: jax.Array = SpectralNorm(make(parent=None), name=name)(x, train)
        return y
    y = make(name=name)(x)
    return y if batch is None else batch(y, train)
