"""Maxout units. Shapes: C input channels, K features, `...` other axes."""

import flax.linen as nn
import jax
from flax.typing import Initializer

from dlcore.nn.convolution import Conv
from dlcore.nn.dense import Dense
from dlcore.nn.windows import Padding, PerDimension


class Maxout(nn.Module):
    """A layer max over k of (x W_k + b_k), a learned convex, piecewise linear function.

    Each feature is the largest of `pieces` affine functions, which are dense or, with a kernel
    size, convolutions; it has `pieces` times the parameters of one (Goodfellow et al. 2013, eq. 4).

    Attributes:
        features: K.
        pieces: the number of affine functions per feature.
        kernel_size: the window of the convolutional form; None for the dense one.
        stride: the stride of the convolution.
        padding: the padding of the convolution, as for `Conv`.
        kernel_init: draws the kernel.
    """

    features: int
    pieces: int
    kernel_size: tuple[int, ...] | None = None
    stride: PerDimension = 1
    padding: Padding = "valid"
    kernel_init: Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (..., C) to (..., K), or (B, I..., C) to (B, O..., K) as `Conv` does."""
        width = self.features * self.pieces
        affine: nn.Module = (
            Dense(width, kernel_init=self.kernel_init, name="affine")
            if self.kernel_size is None
            else Conv(
                width,
                self.kernel_size,
                stride=self.stride,
                padding=self.padding,
                kernel_init=self.kernel_init,
                name="affine",
            )
        )
        y = affine(x)
        return y.reshape(*y.shape[:-1], self.features, self.pieces).max(-1)
