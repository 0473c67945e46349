"""Autoencoders of images (Rumelhart et al. 1986; Hinton & Salakhutdinov 2006).

Shapes: B batch, H W image, C channels.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np

from dlcore.nn import Conv, ConvTranspose, Dense

# The stride 2 divides it, so that transposed convolutions leave no pattern.
_WINDOW = (4, 4)


class DenseAutoencoder(nn.Module):
    """A dense layer, the code, a dense layer, and the pixels.

    Attributes:
        code: the numbers of the code.
        hidden: the units of the layers before and after it.
    """

    code: int
    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H, W, C)."""
        shape = x.shape
        x = x.reshape(len(x), -1)
        pixels = x.shape[-1]
        # These are the names in a plain `Sequential`, whose layers 1 and 4 are rectifiers.
        x = nn.relu(Dense(self.hidden, name="layers_0")(x))
        x = Dense(self.code, name="layers_2")(x)
        x = nn.relu(Dense(self.hidden, name="layers_3")(x))
        return Dense(pixels, name="layers_5")(x).reshape(shape)


class ConvolutionalAutoencoder(nn.Module):
    """Two convolutions that halve the image, the code, and two transposed ones that double it.

    Attributes:
        code: the numbers of the code.
        hidden: the filters of the layers before and after it; those outside have half as many.
    """

    code: int
    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H, W, C)."""
        channels = (x.shape[-1], -(-self.hidden // 2), self.hidden)
        sizes = []
        for layer, features in enumerate(channels[1:]):
            sizes.append(x.shape[1:3])
            conv = Conv(features, _WINDOW, stride=2, padding="same", name=f"down_{layer}")
            x = nn.relu(conv(x))
        shape = x.shape
        x = Dense(self.code, name="code")(x.reshape(len(x), -1))
        x = nn.relu(Dense(int(np.prod(shape[1:])), name="expand")(x)).reshape(shape)
        for layer in (1, 0):
            # An odd size is not twice its half.
            up = ConvTranspose(
                channels[layer],
                _WINDOW,
                stride=2,
                padding="same",
                output_size=sizes[layer],
                name=f"up_{layer}",
            )
            x = up(nn.relu(x) if layer == 0 else x)
        return x


AUTOENCODERS: dict[str, Callable[[int, int], nn.Module]] = {
    "dense": DenseAutoencoder,
    "convolutional": ConvolutionalAutoencoder,
}
