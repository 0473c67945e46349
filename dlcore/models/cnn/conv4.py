"""The four blocks of few-shot learning (Vinyals et al. 2016, section 4.1; Snell et al. 2017).

Shapes: B batch, H W image, C channels, K classes.
"""

import flax.linen as nn
import jax

from dlcore.models.image_size import require_image_size, scaled_channels
from dlcore.nn import BatchNorm, Conv, Dense, max_pool
from dlcore.nn.initialisers import initialiser
from dlcore.types import Activations

_FILTERS = 64


class Conv4(nn.Module):
    """Four blocks of convolution, batch normalisation, ReLU and max pool, and a dense layer.

    The convolutions are 3x3 and the pools 2x2. The papers embed a picture of 28x28 as the 64
    numbers after the last pool. Without the dense layer there are 111,936 parameters at one
    channel.

    Attributes:
        num_classes: K.
        width: a factor of the 64 filters of each block.
    """

    num_classes: int
    width: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by name.

        Raises:
            InputError: for images smaller than 16x16.
        """
        require_image_size("conv4", x, 16)
        a = {}
        for number in range(1, 5):
            conv = Conv(
                scaled_channels(_FILTERS, self.width),
                (3, 3),
                padding="same",
                use_bias=False,
                kernel_init=initialiser("he_normal"),
                name=f"conv{number}",
            )
            x = nn.relu(BatchNorm(name=f"norm{number}")(conv(x), train))
            a[f"block{number}"] = x = max_pool(x, 2)
        x = x.reshape(x.shape[0], -1)
        a["output"] = x = Dense(self.num_classes, name="output")(x)
        return x, a
