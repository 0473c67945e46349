"""A convolutional network without pooling, and the decoder that mirrors it.

Convolutions of stride 2 replace pools, as in Radford et al. 2016 (DCGAN). Shapes: B batch, H W
image, C channels, K classes or values of a code.
"""

import flax.linen as nn
import jax
import numpy as np

from dlcore.nn import Conv, ConvTranspose, Dense
from dlcore.types import Activations

# The stride 2 divides it, so that transposed convolutions leave no pattern.
_WINDOW = (4, 4)
_STRIDE = 2


class StridedCNN(nn.Module):
    """Convolutions that halve the image, each with a rectifier, and a dense layer.

    Attributes:
        num_classes: K.
        filters: the number of filters of each convolution.
    """

    num_classes: int
    filters: tuple[int, ...] = (32, 64)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by name."""
        a = {}
        for number, count in enumerate(self.filters):
            conv = Conv(count, _WINDOW, stride=_STRIDE, padding="same", name=f"conv_{number}")
            a[f"conv_{number}"] = x = nn.relu(conv(x))
        a["output"] = x = Dense(self.num_classes, name="output")(x.reshape(len(x), -1))
        return x, a


class TransposedCNN(nn.Module):
    """A dense layer and transposed convolutions that double the image.

    Attributes:
        shape: the shape (H, W, C) of the image.
        filters: the numbers of filters of the convolutions that it mirrors, in their order.
    """

    shape: tuple[int, int, int]
    filters: tuple[int, ...] = (32, 64)

    @nn.compact
    def __call__(self, code: jax.Array) -> jax.Array:
        """Maps codes (B, K) to images (B, H, W, C)."""
        sizes = [self.shape[:2]]
        for _ in self.filters:
            height, width = sizes[-1]
            sizes.append((-(-height // _STRIDE), -(-width // _STRIDE)))
        inner = (*sizes.pop(), self.filters[-1])
        x = Dense(int(np.prod(inner)), name="expand")(code).reshape(len(code), *inner)
        channels = (self.shape[-1], *self.filters)
        for number in reversed(range(len(self.filters))):
            up = ConvTranspose(
                channels[number],
                _WINDOW,
                stride=_STRIDE,
                padding="same",
                output_size=sizes[number],  # An odd size is not twice its half.
                name=f"up_{number}",
            )
            x = up(nn.relu(x))
        return x
