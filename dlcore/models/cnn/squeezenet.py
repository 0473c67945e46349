"""SqueezeNet (Iandola et al. 2016, SqueezeNet: AlexNet-level accuracy with 50x fewer parameters).

Shapes: B batch, H W image, C channels, K classes.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore import errors
from dlcore.models.cnn.inception import ceil_max_pool
from dlcore.models.image_size import require_image_size, scaled_channels
from dlcore.nn import Conv, Dropout
from dlcore.nn.initialisers import initialiser
from dlcore.types import Activations


class Version(NamedTuple):
    """A version of the network.

    Attributes:
        stem: the number of filters of the first convolution, whose stride is 2.
        window: the side of its window.
        pools: the numbers of the layers that a pool follows; the first convolution is layer 1.
    """

    stem: int
    window: int
    pools: tuple[int, ...]


# The paper's table 1, and the authors' later form with 2.4 times less to compute.
VERSIONS = {"1.0": Version(96, 7, (1, 4, 8)), "1.1": Version(64, 3, (1, 3, 5))}
SQUEEZENET_NAMES = {"squeezenet1_0": "1.0", "squeezenet1_1": "1.1"}
# Filters of the squeeze and of each of the two expands, of fire2 to fire9.
FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128),
         6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}  # fmt: skip


class Fire(nn.Module):
    """A fire module: a 1x1 convolution to few filters, then 1x1 and 3x3 ones side by side.

    Attributes:
        squeeze: the number of filters of the first convolution.
        expand: the number of filters of each of the two others.
    """

    squeeze: int
    expand: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H, W, 2 expand), the outputs of the 1x1 convolution first."""
        he = initialiser("he_normal")
        x = nn.relu(Conv(self.squeeze, (1, 1), kernel_init=he, name="squeeze")(x))
        parts = [
            Conv(
                self.expand,
                (side, side),
                padding=((side // 2, side // 2),) * 2,
                kernel_init=he,
                name=f"expand{side}x{side}",
            )(x)
            for side in (1, 3)
        ]
        return nn.relu(jnp.concatenate(parts, -1))


class SqueezeNet(nn.Module):
    """A convolution, eight fire modules, and a convolution whose maps are averaged to the logits.

    At 1,000 classes and three channels 1.0 has 1,248,424 parameters, 1.1 has 1,235,496.

    Attributes:
        num_classes: K.
        version: "1.0", the paper's, or "1.1".
        width: a factor of all numbers of filters, for small variants.
        dropout: the share of the last module's outputs that is dropped in training.
    """

    num_classes: int
    version: str = "1.0"
    width: float = 1.0
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by name.

        fire2 is the first module, after its rectifiers, and pool1 the pool that follows conv1.

        Raises:
            InputError: for images that are too small for the pools, and for an unknown version.
        """
        version = errors.pick("SqueezeNet version", self.version, VERSIONS)
        (name,) = (name for name, number in SQUEEZENET_NAMES.items() if number == self.version)
        require_image_size(name, x, 21 if self.version == "1.0" else 17)
        a = {}
        window = (version.window, version.window)
        stem = Conv(
            scaled_channels(version.stem, self.width),
            window,
            stride=2,
            kernel_init=initialiser("he_normal"),
            name="conv1",
        )
        a["conv1"] = x = nn.relu(stem(x))
        pools = iter(range(1, 4))
        for layer in range(1, 10):
            if layer > 1:
                filters = (scaled_channels(count, self.width) for count in FIRES[layer])
                a[f"fire{layer}"] = x = Fire(*filters, name=f"fire{layer}")(x)
            if layer in version.pools:
                a[f"pool{next(pools)}"] = x = ceil_max_pool(x)
        x = Dropout(self.dropout)(x, train)
        small = nn.initializers.normal(0.01)
        # A rectifier stands before the mean, as in the authors' program. What all logits have in
        # common changes no probability, and keeps classes from starting where it has no gradient.
        one = nn.initializers.ones
        x = Conv(self.num_classes, (1, 1), kernel_init=small, bias_init=one, name="output")(x)
        a["output"] = x = nn.relu(x).mean((1, 2))
        return x, a
