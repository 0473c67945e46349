"""GoogLeNet (Szegedy et al. 2014, Going deeper with convolutions).

Shapes: B batch, H W image, C channels, K classes.
"""

import functools

import flax.linen as nn
import jax

from dlcore.models.cnn.inception import (
    AuxiliaryHead,
    Branches,
    ConvUnit,
    Inception,
    ceil_max_pool,
)
from dlcore.models.image_size import require_image_size, scaled_channels
from dlcore.nn import Dense, Dropout
from dlcore.nn.local_response import local_response_norm
from dlcore.types import Activations

# Table 1 of the paper.
MODULES = {
    "3a": Branches(64, 96, 128, 16, 32, 32),
    "3b": Branches(128, 128, 192, 32, 96, 64),
    "4a": Branches(192, 96, 208, 16, 48, 64),
    "4b": Branches(160, 112, 224, 24, 64, 64),
    "4c": Branches(128, 128, 256, 24, 64, 64),
    "4d": Branches(112, 144, 288, 32, 64, 64),
    "4e": Branches(256, 160, 320, 32, 128, 128),
    "5a": Branches(256, 160, 320, 32, 128, 128),
    "5b": Branches(384, 192, 384, 48, 128, 128),
}
# The pools that follow a module, and the auxiliary heads that stand on one.
POOLS = {"3b": "pool3", "4e": "pool4"}
HEADS = {"4a": "auxiliary_0", "4d": "auxiliary_1"}


class GoogLeNet(nn.Module):
    """Nine inception modules, a global average and one dense layer.

    At 1,000 classes and 224x224x3 it has 6,998,552 parameters, and 13,378,280 with the auxiliary
    heads. The paper gives the response normalisation no constants: they are those of Krizhevsky et
    al. (2012).

    Attributes:
        num_classes: K.
        auxiliary: whether there are two more classifiers, on the modules 4a and 4d. Their logits
            are the activations "auxiliary_0" and "auxiliary_1", in training only; their parameters
            are always there.
        batch_norm: whether the network has torchvision's form: batch normalisation (epsilon 1e-3)
            in place of biases and response normalisation, 3x3 filters in place of 5x5, 2x2 windows
            in pool4, and auxiliary heads that take maps of any size. torchvision's dropout is 0.2.
            It has 13,004,888 parameters with the auxiliary heads, 6,624,904 without.
        width: a factor of all numbers of features, for small variants.
        dropout: the share of the features that is dropped before the output in training; in the
            auxiliary heads it is 0.7.
    """

    num_classes: int
    auxiliary: bool = True
    batch_norm: bool = False
    width: float = 1.0
    dropout: float = 0.4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps (B, H, W, C) to logits (B, K) and the activations by name.

        Raises:
            InputError: for images smaller than 79x79, into which the 5x5 pool of the auxiliary
                heads does not fit; without these heads smaller than 31x31, so that each pool finds
                two rows; with batch_norm smaller than 15x15.
        """
        self._require_image_size(x)
        unit = functools.partial(ConvUnit, batch_norm=self.batch_norm)
        a = {}
        a["conv1"] = x = unit(self._scaled(64), 7, stride=2, name="conv1")(x, train)
        a["pool1"] = x = ceil_max_pool(x)
        if not self.batch_norm:
            a["norm1"] = x = local_response_norm(x)
        a["conv2_reduce"] = x = unit(self._scaled(64), name="conv2_reduce")(x, train)
        a["conv2"] = x = unit(self._scaled(192), 3, name="conv2")(x, train)
        if not self.batch_norm:
            a["norm2"] = x = local_response_norm(x)
        a["pool2"] = x = ceil_max_pool(x)
        for number, filters in MODULES.items():
            name = f"inception_{number}"
            filters = Branches(*map(self._scaled, filters))
            a[name] = x = Inception(filters, self.batch_norm, name=name)(x, train)
            # While the parameters are made, the heads are called whatever `train` says.
            if self.auxiliary and number in HEADS and (train or self.is_initializing()):
                logits = self._head(HEADS[number])(x, train)
                if train:
                    a[HEADS[number]] = logits
            if number in POOLS:
                small = self.batch_norm and POOLS[number] == "pool4"
                a[POOLS[number]] = x = ceil_max_pool(x, 2 if small else 3)
        a["pool5"] = x = x.mean((1, 2))
        x = Dropout(self.dropout)(x, train)
        a["output"] = x = Dense(self.num_classes, name="output")(x)
        return x, a

    def _require_image_size(self, x: jax.Array) -> None:
        if self.batch_norm:
            require_image_size("googlenet", x, 15)
        elif self.auxiliary:
            require_image_size("googlenet with auxiliary heads", x, 79)
        else:
            require_image_size("googlenet", x, 31)

    def _scaled(self, features: int) -> int:
        return scaled_channels(features, self.width)

    def _head(self, name: str) -> AuxiliaryHead:
        return AuxiliaryHead(
            self.num_classes,
            features=self._scaled(128),
            hidden=self._scaled(1024),
            batch_norm=self.batch_norm,
            name=name,
        )
