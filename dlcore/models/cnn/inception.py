"""The parts of GoogLeNet (Szegedy et al. 2014, Going deeper with convolutions).

Shapes: B batch, H W map, C channels, K classes.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlcore.nn import BatchNorm, Conv, Dense, Dropout, average_pool, max_pool
from dlcore.nn.initialisers import initialiser


class Branches(NamedTuple):
    """The six numbers of filters of an inception module, columns of the paper's table 1.

    Attributes:
        conv1x1: filters of the first branch.
        reduce3x3: filters of the 1x1 convolution before the 3x3 convolution.
        conv3x3: filters of the second branch.
        reduce5x5: filters of the 1x1 convolution before the 5x5 convolution.
        conv5x5: filters of the third branch.
        project: filters of the 1x1 convolution after the pool, the fourth branch.
    """

    conv1x1: int
    reduce3x3: int
    conv3x3: int
    reduce5x5: int
    conv5x5: int
    project: int


class ConvUnit(nn.Module):
    """A convolution that keeps height and width at stride 1, and a rectifier.

    Attributes:
        features: the number of filters.
        size: the height and width of a filter.
        stride: the step of the filter.
        batch_norm: whether batch normalisation takes the place of the bias.
    """

    features: int
    size: int = 1
    stride: int = 1
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (B, H, W, C) to (B, ceil(H / stride), ceil(W / stride), features)."""
        x = Conv(
            self.features,
            (self.size, self.size),
            stride=self.stride,
            padding=((self.size // 2, self.size // 2),) * 2,
            use_bias=not self.batch_norm,
            kernel_init=initialiser("he_normal"),
            name="conv",
        )(x)
        if self.batch_norm:
            x = BatchNorm(epsilon=1e-3, name="norm")(x, train)
        return nn.relu(x)


class Inception(nn.Module):
    """1x1, 3x3 and 5x5 convolutions and a pool side by side, their channels joined (figure 2b).

    Attributes:
        filters: the numbers of filters of the branches.
        batch_norm: whether the module has torchvision's form: batch normalisation, and "5x5"
            filters that are 3x3.
    """

    filters: Branches
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (B, H, W, C) to (B, H, W, the sum of the four branches' filters)."""

        def conv(name: str, x: jax.Array, size: int = 1) -> jax.Array:
            features = getattr(self.filters, name)
            return ConvUnit(features, size, batch_norm=self.batch_norm, name=name)(x, train)

        branches = [
            conv("conv1x1", x),
            conv("conv3x3", conv("reduce3x3", x), 3),
            conv("conv5x5", conv("reduce5x5", x), 3 if self.batch_norm else 5),
            conv("project", max_pool(x, 3, stride=1, padding="same")),
        ]
        return jnp.concatenate(branches, -1)


class AuxiliaryHead(nn.Module):
    """A small classifier on a map in the middle of the network, for training only (section 5).

    Attributes:
        num_classes: K.
        features: the number of filters of its 1x1 convolution.
        hidden: the features of its dense layer.
        dropout: the share of the dense layer's outputs that is dropped in training.
        batch_norm: whether the head has torchvision's form: batch normalisation, and a pool that
            divides any map into 4x4 windows.
    """

    num_classes: int
    features: int = 128
    hidden: int = 1024
    dropout: float = 0.7
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (B, H, W, C), H and W at least 5 without batch_norm, to logits (B, K)."""
        x = adaptive_average_pool(x, 4) if self.batch_norm else average_pool(x, 5, stride=3)
        x = ConvUnit(self.features, batch_norm=self.batch_norm, name="conv")(x, train)
        x = x.reshape(x.shape[0], -1)
        hidden = Dense(self.hidden, kernel_init=initialiser("he_normal"), name="hidden")
        x = Dropout(self.dropout)(nn.relu(hidden(x)), train)
        return Dense(self.num_classes, name="output")(x)


def ceil_max_pool(x: jax.Array, window: int = 3) -> jax.Array:
    """Pools the maximum with stride 2; the last window may exceed the map ("ceil mode").

    Maps (B, H, W, C) to (B, ceil((H - window) / 2) + 1, ..., C), so that windows of 3 halve even
    sizes.
    """
    ends = [-(size - window) % 2 for size in x.shape[1:3]]
    return max_pool(x, window, stride=2, padding=[(0, end) for end in ends])


def adaptive_average_pool(x: jax.Array, size: int) -> jax.Array:
    """Averages size x size windows that cover the map evenly, as PyTorch does.

    Maps (B, H, W, C) to (B, size, size, C). Window i reaches from floor(i H / size) to
    ceil((i + 1) H / size).
    """
    rows, columns = (jnp.asarray(_means(extent, size), x.dtype) for extent in x.shape[1:3])
    return jnp.einsum("bhwc,ih,jw->bijc", x, rows, columns)


def _means(extent: int, size: int) -> np.ndarray:
    """Returns the matrix (size, extent) whose row i averages the positions of window i."""
    i, position = np.arange(size).reshape(-1, 1), np.arange(extent).reshape(1, -1)
    inside = (position >= i * extent // size) & (position < -(-(i + 1) * extent // size))
    return inside / inside.sum(1, keepdims=True)
