"""DCGAN: generators and discriminators without pooling (Radford et al. 2016).

The smallest map is the result of halving the image: 4x4 for images of 64 or 32 pixels, 7x7 for 28,
2x2 for 8. Shapes: B batch, H W image, C channels, Z values of noise.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import normal

from dlcore.errors import InputError
from dlcore.models.generative.layers import leaky_relu, normed
from dlcore.nn import BatchNorm, Conv, ConvTranspose, Dense

# The stride 2 divides it, so that transposed convolutions leave no pattern.
_WINDOW = (4, 4)
_SMALLEST = 4
# Section 4: all weights come from N(0, 0.02).
_INIT = normal(0.02)


def _scale(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    return 1 + _INIT(key, shape, dtype)


def check_sides(height: int, width: int) -> int:
    """Returns how often both sides are halved: until one is odd or below 8, if possible twice.

    Raises:
        InputError: when they cannot be halved once.

    >>> check_sides(64, 64), check_sides(32, 32), check_sides(28, 28), check_sides(8, 8)
    (4, 3, 2, 2)
    """
    count, sides = 0, (height, width)
    # A discriminator of one convolution sees no shapes.
    while all(side % 2 == 0 and side >= (_SMALLEST if count < 2 else 8) for side in sides):
        count, sides = count + 1, (sides[0] // 2, sides[1] // 2)
    if not count:
        raise InputError(
            f"images of {height}x{width} pixels cannot be halved as dcgan does; give an "
            "--image_size that is even and 4 or more, best 28, 32 or 64, or choose --model=dense"
        )
    return count


class DCGANGenerator(nn.Module):
    """A dense layer and transposed convolutions that double the map, with batch normalisation.

    Attributes:
        shape: the shape (H, W, C) of the images.
        width: the channels of the last map before the image; each map before it has twice as many.
    """

    shape: tuple[int, int, int]
    width: int = 64

    @nn.compact
    def __call__(self, noise: jax.Array, train: bool = False) -> jax.Array:
        """Maps noise (B, Z) to images (B, H, W, C) in -1..1.

        Raises:
            InputError: for a size that cannot be halved.
        """
        height, width, channels = self.shape
        count = check_sides(height, width)
        inner = (height >> count, width >> count, self.width << (count - 1))
        x = Dense(inner[0] * inner[1] * inner[2], use_bias=False, kernel_init=_INIT, name="expand")(
            noise
        )
        x = x.reshape(len(x), *inner)
        for number in range(count):
            # The bias of a layer before a normalisation has no effect.
            x = nn.relu(BatchNorm(scale_init=_scale, name=f"norm_{number}")(x, train))
            features = inner[2] >> (number + 1) if number < count - 1 else channels
            up = ConvTranspose(
                features,
                _WINDOW,
                stride=2,
                padding="same",
                output_size=(inner[0] << (number + 1), inner[1] << (number + 1)),
                kernel_init=_INIT,
                name=f"up_{number}",
            )
            x = up(x)
        return nn.tanh(x)


class DCGANDiscriminator(nn.Module):
    """Convolutions that halve the map, with leaky rectifiers and without pools.

    Attributes:
        width: the channels of the first map; each map after it has twice as many.
        norm: the norm of all layers except the first, one of `NORMS`; "spectral" applies to all.
    """

    width: int = 64
    norm: str = "batch"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (B, H, W, C) in -1..1 to features (B, F).

        Raises:
            InputError: for a size that cannot be halved.
        """
        for number in range(check_sides(*x.shape[1:3])):
            batch = None
            if number and self.norm == "batch":
                batch = BatchNorm(scale_init=_scale, name=f"norm_{number}")
            make = functools.partial(
                Conv,
                self.width << number,
                _WINDOW,
                stride=2,
                padding="same",
                use_bias=batch is None,
                kernel_init=_INIT,
            )
            x = leaky_relu(normed(make, f"down_{number}", self.norm, x, train, batch=batch))
        return x.reshape(len(x), -1)
