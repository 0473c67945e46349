"""A network that turns a picture into another one of the same size.

Shapes: B pictures, H W their height and width, 3 channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.errors import choose
from dlcore.models.image_size import require_image_size, scaled_channels
from dlcore.nn import Conv, ConvTranspose, InstanceNorm
from dlcore.nn.initialisers import initialiser
from dlcore.types import Activations

UPSAMPLING = ("nearest", "transposed")
# Filters at the picture's size, at half and at a quarter of it.
_FILTERS = (32, 64, 128)
_HE = initialiser("he_normal")
_SMALLEST = 5  # the picture must be larger than what the 9x9 window mirrors


class TransformationNetwork(nn.Module):
    """The image transformation network of Johnson et al. 2016, with instance normalisation.

    It has a 9x9 convolution, two 3x3 ones that halve the picture, residual blocks, two 3x3 ones
    that double it, and a 9x9 one to the picture; the table of architectures is in the paper's
    supplement. A normalisation follows each convolution except the last, and then a rectifier,
    except for the second convolution of a block; nothing follows the sum of a block. Instance
    normalisation replaces the paper's batch normalisation (Ulyanov et al. 2016), and each window
    sees the mirrored picture beyond an edge. A convolution before a normalisation has no bias,
    which the normalisation would remove; so at width 1 and 5 blocks there are 1,677,635 parameters.

    Attributes:
        width: a factor of all numbers of filters, for small variants.
        blocks: the number of residual blocks.
        upsampling: "nearest" repeats pixels and then convolves, which leaves no chequered pattern
            (Odena et al. 2016); "transposed" is a transposed convolution as in the paper.
    """

    width: float = 1.0
    blocks: int = 5
    upsampling: str = "nearest"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps pictures (B, H, W, 3) to pictures (B, H, W, 3) of 0 to 1, and activations by name.

        The scale of the input does not matter, since the first normalisation removes it.

        Raises:
            InputError: for pictures of fewer than 5x5 pixels, and for an unknown upsampling.
        """
        if self.upsampling not in UPSAMPLING:
            raise choose("upsampling", self.upsampling, UPSAMPLING)
        require_image_size("the transformation network", x, _SMALLEST)
        height, width = x.shape[1:3]
        filters = [scaled_channels(count, self.width) for count in _FILTERS]
        a: Activations = {}
        a["conv1"] = x = nn.relu(_unit(x, filters[0], 9, "conv1"))
        for number, count in enumerate(filters[1:], 2):
            a[f"conv{number}"] = x = nn.relu(_unit(x, count, 3, f"conv{number}", stride=2))
        for number in range(1, self.blocks + 1):
            y = nn.relu(_unit(x, filters[-1], 3, f"block{number}_conv1"))
            a[f"block{number}"] = x = x + _unit(y, filters[-1], 3, f"block{number}_conv2")
        for number, count in enumerate(filters[-2::-1], 1):
            name = f"up{number}"
            if self.upsampling == "nearest":
                y = _unit(_doubled(x), count, 3, name)
            else:
                up = ConvTranspose(
                    count,
                    (3, 3),
                    stride=2,
                    padding=((1, 0), (1, 0)),
                    use_bias=False,
                    kernel_init=_HE,
                    name=name,
                )
                y = InstanceNorm(name=f"{name}_norm")(up(x))
            a[name] = x = nn.relu(y)
        # Sizes that 4 does not divide were rounded up on the way.
        x = x[:, :height, :width]
        small = nn.initializers.lecun_normal()
        x = Conv(3, (9, 9), kernel_init=small, name="output")(_mirrored(x, 4))
        a["output"] = x = nn.sigmoid(x)
        return x, a


def _unit(x: jax.Array, features: int, window: int, name: str, *, stride: int = 1) -> jax.Array:
    """Applies a convolution of the mirrored picture, and its normalisation."""
    conv = Conv(
        features, (window, window), stride=stride, use_bias=False, kernel_init=_HE, name=name
    )
    return InstanceNorm(name=f"{name}_norm")(conv(_mirrored(x, window // 2)))


def _mirrored(x: jax.Array, border: int) -> jax.Array:
    pads = ((0, 0), (border, border), (border, border), (0, 0))
    return jnp.pad(x, pads, mode="reflect")


def _doubled(x: jax.Array) -> jax.Array:
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
