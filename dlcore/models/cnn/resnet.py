"""Residual networks for ImageNet: ResNet-18 to 152 (He et al. 2015, table 1), and version 2 of them
(He et al. 2016). Shapes: B batch, H W image, C channels, K classes.
"""

import functools

import flax.linen as nn
import jax

from dlcore import errors
from dlcore.models.cnn.residual import SCAN_FROM, Unit, basic, bottleneck, convolution, stage_of
from dlcore.models.image_size import require_image_size, scaled_channels
from dlcore.nn import BatchNorm, Dense, max_pool
from dlcore.nn.stochastic_depth import survival_probabilities
from dlcore.types import Activations

# The blocks of each stage; from 50 layers on they are bottlenecks.
STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ResNet(nn.Module):
    """A strided 7x7 convolution, a max pool and four stages of residual blocks.

    It has 11,689,512 parameters with 18 layers, 25,557,032 with 50, at 1000 classes and 3 channels.

    Attributes:
        num_classes: K.
        depth: 18 or 34, of basic blocks; 50, 101 or 152, of bottlenecks.
        version: 1, or 2 with normalisation and ReLU before the convolutions (`ResidualBlock`).
        shortcut: the shortcut of a block that changes the shape, "projection" or "identity".
        stride_in: the convolution of a bottleneck that strides, "3x3" or, as in the paper, "1x1".
        width: a factor of all channel counts.
        zero_init: whether each block starts as its shortcut.
        survival: p_L of stochastic depth; 1 is none.
        drop: whether branches are dropped for each "example" or for the whole "batch".
        remat: the inner values of blocks that the backward pass computes again, see
            `dlcore.nn.remat`.
        scan_from: see `residual.Stage`.
    """

    num_classes: int
    depth: int = 50
    version: int = 1
    shortcut: str = "projection"
    stride_in: str = "3x3"
    width: float = 1.0
    zero_init: bool = False
    survival: float = 1.0
    drop: str = "example"
    remat: str = "none"
    scan_from: int = SCAN_FROM

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by name.

        Raises:
            InputError: for images smaller than 8x8, or an attribute outside of its choices.
        """
        # The padding would let every size through, down to one pixel.
        require_image_size(f"resnet{self.depth}", x, 8)
        if self.depth not in STAGES:
            raise errors.choose("depth", str(self.depth), STAGES)
        a = {}
        x = convolution(Unit(scaled_channels(64, self.width), 7, 2), "stem")(x)
        a["stem"] = x = nn.relu(BatchNorm(name="stem_norm")(x, train))
        a["stem_pool"] = x = max_pool(x, 3, stride=2, padding=((1, 1), (1, 1)))
        units = (
            basic if self.depth < 50 else functools.partial(bottleneck, stride_in=self.stride_in)
        )
        survival = survival_probabilities(sum(STAGES[self.depth]), self.survival)
        for stage, blocks in enumerate(STAGES[self.depth]):
            features = scaled_channels(64 * 2**stage, self.width)
            chances, survival = survival[:blocks], survival[blocks:]
            run = stage_of(self, stage, features, units, chances, shortcut=self.shortcut)
            for i, y in enumerate(run(x, train)):
                a[f"stage_{stage}_block_{i}"] = x = y
        if self.version == 2:
            a["final"] = x = nn.relu(BatchNorm(name="final_norm")(x, train))
        a["pool"] = x = x.mean((1, 2))
        a["output"] = x = Dense(self.num_classes, name="output")(x)
        return x, a
