"""Residual networks for small images (He et al. 2015, Deep residual learning, section 4.2), and
version 2 of them (He et al. 2016). Shapes: B batch, H W image, C channels, K classes.
"""

import flax.linen as nn
import jax

from dlcore.errors import InputError
from dlcore.models.cnn.residual import SCAN_FROM, Unit, basic, convolution, stage_of
from dlcore.models.image_size import require_image_size, scaled_channels
from dlcore.nn import BatchNorm, Dense
from dlcore.nn.stochastic_depth import survival_probabilities
from dlcore.types import Activations


class SmallResNet(nn.Module):
    """A 3x3 convolution and three stages of n basic blocks with 16, 32 and 64 channels.

    These are 6n + 2 layers: 20, 32, 44, 56, 110 or 1202 in the paper, and 8 for small tasks.

    Attributes:
        num_classes: K.
        depth: 6n + 2.
        version: 1, or 2 with normalisation and ReLU before the convolutions (`ResidualBlock`).
        shortcut: the shortcut of a block that changes the shape: "identity", which has no
            parameters, or "projection".
        plain: whether to leave out all shortcuts, to measure their effect.
        width: a factor of all channel counts.
        zero_init: whether each block starts as its shortcut.
        survival: p_L of stochastic depth (Huang et al. 2016: 0.5); 1 is none.
        drop: whether branches are dropped for each "example" or, as in the paper, the whole
            "batch".
        remat: the inner values of blocks that the backward pass computes again, see
            `dlcore.nn.remat`.
        scan_from: see `residual.Stage`.
    """

    num_classes: int
    depth: int = 20
    version: int = 1
    shortcut: str = "identity"
    plain: bool = False
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
            InputError: for images smaller than 8x8, a depth that is not 6n + 2, an attribute
                outside of its choices, or a plain network with stochastic depth or zero_init.
        """
        require_image_size(f"resnet{self.depth}", x, 8)
        blocks, rest = divmod(self.depth - 2, 6)
        if rest or blocks < 1:
            raise InputError(f"depth {self.depth} is not 6n + 2 with n >= 1; try 20, 32 or 56")
        if self.plain and (self.survival < 1 or self.zero_init):
            raise InputError(
                "without its shortcuts a plain network lets nothing past a branch that is dropped "
                "or zero; set survival=1 and zero_init=False, or plain=False"
            )
        a = {}
        x = convolution(Unit(scaled_channels(16, self.width), 3), "stem")(x)
        a["stem"] = x = nn.relu(BatchNorm(name="stem_norm")(x, train))
        shortcut = "none" if self.plain else self.shortcut
        survival = survival_probabilities(3 * blocks, self.survival)
        for stage in range(3):
            features = scaled_channels(16 * 2**stage, self.width)
            chances = survival[stage * blocks : (stage + 1) * blocks]
            run = stage_of(self, stage, features, basic, chances, shortcut=shortcut)
            for i, y in enumerate(run(x, train)):
                a[f"stage_{stage}_block_{i}"] = x = y
        if self.version == 2:
            a["final"] = x = nn.relu(BatchNorm(name="final_norm")(x, train))
        a["pool"] = x = x.mean((1, 2))
        a["output"] = x = Dense(self.num_classes, name="output")(x)
        return x, a
