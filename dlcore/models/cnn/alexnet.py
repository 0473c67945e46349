"""AlexNet, the paper's with two groups (Krizhevsky et al. 2012, ImageNet classification with deep
convolutional neural networks) and its later form with one tower (Krizhevsky 2014, One weird trick
for parallelizing convolutional neural networks).

Shapes: B batch, H W image, C channels, K classes.
"""

import flax.linen as nn
import jax

from dlcore.models.image_size import require_image_size, scaled_channels
from dlcore.nn import Conv, Dense, Dropout, max_pool
from dlcore.nn.initialisers import initialiser
from dlcore.nn.local_response import local_response_norm
from dlcore.types import Activations

# The paper's initialiser. In the output layer it makes the first loss that of guessing evenly.
SMALL_NORMAL = nn.initializers.normal(0.01)


def _same(size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the padding that keeps height and width at stride 1."""
    return ((size // 2, size // 2),) * 2


class AlexNet(nn.Module):
    """The paper's network: 60,965,224 parameters at 1,000 classes and 224x224x3 or 227x227x3.

    The paper trained it on two GPUs, whose layers meet in conv3 and from fc6 on: conv2, conv4 and
    conv5 are convolutions in two groups. Response normalisation is over all channels of a layer, as
    the formula of section 3.3 has it. Dropout is on the outputs of fc6 and fc7 (section 4.2).

    Attributes:
        num_classes: K.
        width: a factor of the numbers of channels, which stay even, for small variants.
        hidden: the features of fc6 and fc7.
        dropout: the share of their features that is dropped in training.
        initialiser: the name of the initialiser of all weights except the output's. "paper", normal
            with deviation 0.01, suits the paper's width only: at an eighth of that width the logits
            of two images differ by 1e-7 of their size, at full width by 1e-4. Choose "he_normal"
            for narrow networks.
    """

    num_classes: int
    width: float = 1.0
    hidden: int = 4096
    dropout: float = 0.5
    initialiser: str = "paper"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by name.

        Raises:
            InputError: for images smaller than 64x64.
        """
        require_image_size("alexnet", x, 64)
        ones = nn.initializers.ones_init()
        draw = SMALL_NORMAL if self.initialiser == "paper" else initialiser(self.initialiser)
        a = {}

        def conv(name: str, features: int, size: int, groups: int = 1) -> Conv:
            # Biases of 1 give the rectifiers of these layers positive inputs at first (section 5).
            return Conv(
                2 * scaled_channels(features // 2, self.width),  # even, for the groups that read it
                (size, size),
                # The paper's 224x224 images do not fit its 55x55 units at stride 4, which cover
                # 227. Three more pixels at every size give its maps, 55, 27, 13 and 6, at 224 as
                # well as at the 227 that others take.
                stride=4 if name == "conv1" else 1,
                padding=((1, 2), (1, 2)) if name == "conv1" else _same(size),
                groups=groups,
                kernel_init=draw,
                bias_init=ones if groups == 2 else nn.initializers.zeros_init(),
                name=name,
            )

        a["conv1"] = x = nn.relu(conv("conv1", 96, 11)(x))
        a["norm1"] = x = local_response_norm(x)
        a["pool1"] = x = max_pool(x, 3, stride=2)
        a["conv2"] = x = nn.relu(conv("conv2", 256, 5, groups=2)(x))
        a["norm2"] = x = local_response_norm(x)
        a["pool2"] = x = max_pool(x, 3, stride=2)
        a["conv3"] = x = nn.relu(conv("conv3", 384, 3)(x))
        a["conv4"] = x = nn.relu(conv("conv4", 384, 3, groups=2)(x))
        a["conv5"] = x = nn.relu(conv("conv5", 256, 3, groups=2)(x))
        a["pool5"] = x = max_pool(x, 3, stride=2)
        x = x.reshape(x.shape[0], -1)
        for name in ("fc6", "fc7"):
            dense = Dense(self.hidden, kernel_init=draw, bias_init=ones, name=name)
            a[name] = x = nn.relu(dense(x))
            x = Dropout(self.dropout)(x, train)
        output = Dense(self.num_classes, kernel_init=SMALL_NORMAL, name="output")
        a["output"] = x = output(x)
        return x, a


class AlexNetOneTower(nn.Module):
    """AlexNet with one tower, as in torchvision.

    It has 61,100,840 parameters at 1,000 classes and 224x224x3. It has no groups, no response
    normalisation, fewer filters, and dropout on the inputs of fc6 and fc7. torchvision averages
    maps of other sizes to 6x6 before fc6; here fc6 takes the map as it is. Images of 223x223 to
    254x254 have a map of 6x6, so that the two agree.

    Attributes:
        num_classes: K.
        width: a factor of the numbers of channels, for small variants.
        hidden: the features of fc6 and fc7.
        dropout: the share of the inputs of fc6 and fc7 that is dropped in training.
    """

    num_classes: int
    width: float = 1.0
    hidden: int = 4096
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by name.

        Raises:
            InputError: for images smaller than 63x63.
        """
        require_image_size("alexnet_one_tower", x, 63)
        he = initialiser("he_normal")
        a = {}

        def conv(name: str, features: int, size: int) -> Conv:
            return Conv(
                scaled_channels(features, self.width),
                (size, size),
                stride=4 if name == "conv1" else 1,
                padding=((2, 2), (2, 2)) if name == "conv1" else _same(size),
                kernel_init=he,
                name=name,
            )

        a["conv1"] = x = nn.relu(conv("conv1", 64, 11)(x))
        a["pool1"] = x = max_pool(x, 3, stride=2)
        a["conv2"] = x = nn.relu(conv("conv2", 192, 5)(x))
        a["pool2"] = x = max_pool(x, 3, stride=2)
        a["conv3"] = x = nn.relu(conv("conv3", 384, 3)(x))
        a["conv4"] = x = nn.relu(conv("conv4", 256, 3)(x))
        a["conv5"] = x = nn.relu(conv("conv5", 256, 3)(x))
        a["pool5"] = x = max_pool(x, 3, stride=2)
        x = x.reshape(x.shape[0], -1)
        for name in ("fc6", "fc7"):
            x = Dropout(self.dropout)(x, train)
            a[name] = x = nn.relu(Dense(self.hidden, kernel_init=he, name=name)(x))
        output = Dense(self.num_classes, kernel_init=SMALL_NORMAL, name="output")
        a["output"] = x = output(x)
        return x, a
