"""Darknet-19 (Redmon & Farhadi 2017, YOLO9000: better, faster, stronger, table 6), and a small net
of the same kind. Shapes: B batch, H W image, C channels, K classes.
"""

import flax.linen as nn
import jax

from dlcore.models.image_size import require_image_size, scaled_channels
from dlcore.nn import BatchNorm, Conv, max_pool
from dlcore.nn.initialisers import initialiser
from dlcore.types import Activations

# The filters of the convolutions of each stage, which a 2x2 max pool leads to the next one.
Stages = tuple[tuple[int, ...], ...]

DARKNET_19: Stages = (
    (32,),
    (64,),
    (128, 64, 128),
    (256, 128, 256),
    (512, 256, 512, 256, 512),
    (1024, 512, 1024, 512, 1024),
)
# Most of its work is done at strides of 4 and 8, where two CPU cores are fast.
SMALL_DARKNET: Stages = ((24,), (48, 24, 48), (96, 48, 96, 48, 96), (192, 96, 192))
DARKNET_NAMES = {DARKNET_19: "darknet19", SMALL_DARKNET: "darknet_small"}
SLOPE = 0.1  # of the rectifiers below 0


class ConvUnit(nn.Module):
    """A convolution without bias, batch normalisation and a leaky rectifier.

    Attributes:
        features: the number of filters.
        window: the side of the window; only the stride changes the size of the image.
        stride: the step of the window.
    """

    features: int
    window: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (B, H, W, C) to (B, ceil(H / stride), ceil(W / stride), features)."""
        pad = self.window // 2
        x = Conv(
            self.features,
            (self.window, self.window),
            stride=self.stride,
            padding=((pad, pad), (pad, pad)),
            use_bias=False,
            kernel_init=initialiser("he_normal"),
            name="conv",
        )(x)
        return nn.leaky_relu(BatchNorm(name="norm")(x, train), SLOPE)


class Darknet(nn.Module):
    """A network of stages of 3x3 convolutions with 1x1 ones in between, and the mean of K maps.

    Darknet-19 has 20,842,376 parameters at 1,000 classes and three channels.

    Attributes:
        num_classes: K.
        stages: the filters of each stage's convolutions: the first is 3x3, the second 1x1, and so
            on. A 2x2 max pool comes between two stages.
        stem_stride: the stride of the first convolution; 2 saves most of the work at full size.
        width: a factor of the numbers of channels, for small variants.
    """

    num_classes: int
    stages: Stages = DARKNET_19
    stem_stride: int = 1
    width: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by name.

        conv2_1 is the first convolution of the second stage, after its rectifier, and pool1 the
        pool before it.

        Raises:
            InputError: for images too small for the pools to halve.
        """
        name = DARKNET_NAMES.get(self.stages, "a Darknet of these stages")
        # A convolution rounds up, a pool down.
        smallest = self.stem_stride * (2 ** (len(self.stages) - 1) - 1) + 1
        require_image_size(name, x, smallest)
        a = {}
        for stage, features in enumerate(self.stages, start=1):
            if stage > 1:
                a[f"pool{stage - 1}"] = x = max_pool(x, 2)
            for layer, filters in enumerate(features, start=1):
                unit = ConvUnit(
                    scaled_channels(filters, self.width),
                    3 if layer % 2 else 1,
                    self.stem_stride if (stage, layer) == (1, 1) else 1,
                    name=f"conv{stage}_{layer}",
                )
                a[f"conv{stage}_{layer}"] = x = unit(x, train)
        # So small that the first loss is that of guessing evenly.
        small = nn.initializers.normal(0.01)
        x = Conv(self.num_classes, (1, 1), kernel_init=small, name="output")(x)
        a["output"] = x = x.mean((1, 2))
        return x, a
