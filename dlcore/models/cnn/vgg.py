"""VGG (Simonyan & Zisserman 2014, Very deep convolutional networks for large-scale image
recognition). Shapes: B batch, H W image, C channels, K classes.
"""

import flax.linen as nn
import jax

from dlcore import errors
from dlcore.models.image_size import require_image_size, scaled_channels
from dlcore.nn import BatchNorm, Conv, Dense, Dropout, max_pool
from dlcore.nn.initialisers import initialiser
from dlcore.types import Activations

# Table 1 of the paper: the filter sizes of the five stages, each of which ends with a max pool.
CONFIGURATIONS = {
    "A": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    "B": ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3)),
    "C": ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    "D": ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    "E": ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
}
FEATURES = (64, 128, 256, 512, 512)
# The number in the name counts the layers with weights.
VGG_NAMES = {"vgg11": "A", "vgg13": "B", "vgg16_c": "C", "vgg16": "D", "vgg19": "E"}


class VGG(nn.Module):
    """Stages of small convolutions, each followed by a 2x2 max pool, and three dense layers.

    Parameters at 1,000 classes and 224x224x3: A 132,863,336; B 133,047,848; C 133,638,952;
    D 138,357,544; E 143,667,240.

    The paper trained A first and started the deeper networks from its layers. This is no longer
    needed: with the initialisation of He et al. (2015) all of them train from scratch.

    Attributes:
        num_classes: K.
        config: the column of the paper's table 1: A, B, C, D or E.
        batch_norm: whether each convolution, which keeps its bias, is followed by batch
            normalisation, which is not in the paper but usual today.
        width: a factor of the numbers of channels, for small variants.
        hidden: the features of fc6 and fc7.
        dropout: the share of the outputs of fc6 and fc7 that is dropped in training.
    """

    num_classes: int
    config: str = "D"
    batch_norm: bool = False
    width: float = 1.0
    hidden: int = 4096
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by name.

        conv1_2 is the second convolution of the first stage, after its rectifier, and pool1 the
        stage's pool.

        Raises:
            InputError: for images smaller than 32x32, which the five pools halve to 1x1, and for
                an unknown configuration.
        """
        stages = errors.pick("VGG configuration", self.config, CONFIGURATIONS)
        (name,) = (name for name, config in VGG_NAMES.items() if config == self.config)
        require_image_size(name, x, 32)
        he = initialiser("he_normal")
        a = {}
        for stage, (sizes, features) in enumerate(zip(stages, FEATURES, strict=True), start=1):
            for layer, size in enumerate(sizes, start=1):
                part = f"{stage}_{layer}"
                x = Conv(
                    scaled_channels(features, self.width),
                    (size, size),
                    padding=((size // 2, size // 2),) * 2,
                    kernel_init=he,
                    name=f"conv{part}",
                )(x)
                if self.batch_norm:
                    x = BatchNorm(name=f"norm{part}")(x, train)
                a[f"conv{part}"] = x = nn.relu(x)
            a[f"pool{stage}"] = x = max_pool(x, 2)
        x = x.reshape(x.shape[0], -1)
        for name in ("fc6", "fc7"):
            a[name] = x = nn.relu(Dense(self.hidden, kernel_init=he, name=name)(x))
            x = Dropout(self.dropout)(x, train)
        # So small that the first loss is that of guessing evenly.
        small = nn.initializers.normal(0.01)
        a["output"] = x = Dense(self.num_classes, kernel_init=small, name="output")(x)
        return x, a
