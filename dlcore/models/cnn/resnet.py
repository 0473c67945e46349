"""Residual networks for small images (He et al. 2015, Deep residual learning, section 4.2).

Shapes: B batch, H W image, C channels, K classes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore.models.sizes import require_size
from dlcore.nn import BatchNorm, Conv, Dense
from dlcore.nn.initialisers import initialiser


def _conv3x3(features: int, stride: int, name: str) -> Conv:
    # No bias: the batch normalisation that follows has one.
    return Conv(
        features,
        (3, 3),
        stride=stride,
        padding=((1, 1), (1, 1)),
        use_bias=False,
        kernel_init=initialiser("he_normal"),
        name=name,
    )


class ResidualBlock(nn.Module):
    """relu(x + f(x)), f being two 3x3 convolutions with batch normalisation (figure 2).

    The shortcut has no parameters (option A): where the block halves the image it takes every
    second pixel, and new channels are zero.

    Attributes:
        features: the number of output channels, at least C.
        stride: of the first convolution.
    """

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (B, H, W, C) to (B, ceil(H / stride), ceil(W / stride), features)."""
        y = _conv3x3(self.features, self.stride, "conv_0")(x)
        y = nn.relu(BatchNorm(name="norm_0")(y, train))
        y = _conv3x3(self.features, 1, "conv_1")(y)
        y = BatchNorm(name="norm_1")(y, train)
        shortcut = x[:, :: self.stride, :: self.stride]
        new = self.features - x.shape[-1]
        return nn.relu(y + jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (0, new))))


class SmallResNet(nn.Module):
    """A 3x3 convolution and three stages of n blocks with 16, 32 and 64 channels: 6n + 2 layers.

    Attributes:
        num_classes: K.
        depth: 6n + 2: 20, 32, 44, 56 or 110 in the paper.
    """

    num_classes: int
    depth: int = 20

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by name.

        Raises:
            InputError: for images smaller than 8x8.
            ValueError: when the depth is not 6n + 2.
        """
        require_size(f"resnet{self.depth}", x, 8)
        blocks, rest = divmod(self.depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth {self.depth} is not 6n + 2 with n >= 1, such as 20 or 32")
        a = {}
        x = _conv3x3(16, 1, "stem")(x)
        a["stem"] = x = nn.relu(BatchNorm(name="stem_norm")(x, train))
        for stage, features in enumerate((16, 32, 64)):
            for i in range(blocks):
                name = f"stage_{stage}_block_{i}"
                stride = 2 if stage > 0 and i == 0 else 1
                a[name] = x = ResidualBlock(features, stride, name=name)(x, train)
        a["pool"] = x = x.mean((1, 2))
        a["output"] = x = Dense(self.num_classes, name="output")(x)
        return x, a
