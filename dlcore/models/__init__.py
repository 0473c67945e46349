"""Architectures, one per file: Linen modules (images, train) -> (logits, activations by name).

This package has the image classifiers by name; the other kinds are in packages of their own. A
model computes in the type of its parameters and returns every activation, which style transfer,
reports and checks read.

>>> import jax, jax.numpy as jnp
>>> from dlcore.models import image_model
>>> model = image_model("mlp", num_classes=10)
>>> variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
>>> logits, activations = model.apply(variables, jnp.zeros((4, 8, 8, 1)))
>>> logits.shape
(4, 10)
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn

from dlcore import errors
from dlcore.models.cnn.alexnet import AlexNet, AlexNetOneTower
from dlcore.models.cnn.conv4 import Conv4
from dlcore.models.cnn.darknet import SMALL_DARKNET, Darknet
from dlcore.models.cnn.densenet import DenseNet, SmallDenseNet
from dlcore.models.cnn.googlenet import GoogLeNet
from dlcore.models.cnn.highway import HighwayCNN, HighwayMLP
from dlcore.models.cnn.lenet import LeNet5, LeNet5Modern
from dlcore.models.cnn.maxout import MaxoutCNN, MaxoutMLP
from dlcore.models.cnn.resnet import ResNet
from dlcore.models.cnn.small_resnet import SmallResNet
from dlcore.models.cnn.squeezenet import SQUEEZENET_NAMES, SqueezeNet
from dlcore.models.cnn.strided import StridedCNN
from dlcore.models.cnn.vgg import VGG, VGG_NAMES
from dlcore.models.mlp import MLP

__all__ = [
    "IMAGE_MODELS",
    "MLP",
    "VGG",
    "AlexNet",
    "AlexNetOneTower",
    "Conv4",
    "Darknet",
    "DenseNet",
    "GoogLeNet",
    "HighwayCNN",
    "HighwayMLP",
    "ImageModel",
    "LeNet5",
    "LeNet5Modern",
    "MaxoutCNN",
    "MaxoutMLP",
    "ResNet",
    "SmallDenseNet",
    "SmallResNet",
    "SqueezeNet",
    "StridedCNN",
    "image_model",
    "image_spec",
]


class ImageModel(NamedTuple):
    """An image classifier that can be chosen by name.

    Attributes:
        build: makes the module, a `dlcore.types.Classifier`; takes `num_classes` and the module's
            other attributes by keyword.
        image_size: the height and width that the model was designed for; None where it takes the
            images of any data set as they are.
    """

    build: Callable[..., nn.Module]
    image_size: int | None = None


# The classifiers of images by name.
IMAGE_MODELS: dict[str, ImageModel] = {
    "mlp": ImageModel(MLP),
    "highway_mlp": ImageModel(HighwayMLP),
    "highway_cnn": ImageModel(HighwayCNN),
    "maxout_mlp": ImageModel(MaxoutMLP),
    "maxout_cnn": ImageModel(MaxoutCNN),
    "lenet5": ImageModel(LeNet5Modern, 32),
    "lenet5_paper": ImageModel(LeNet5, 32),
    "conv4": ImageModel(Conv4),
    "strided_cnn": ImageModel(StridedCNN),
    "alexnet": ImageModel(AlexNet, 224),
    "alexnet_one_tower": ImageModel(AlexNetOneTower, 224),
    **{name: ImageModel(partial(VGG, config=config), 224) for name, config in VGG_NAMES.items()},
    "googlenet": ImageModel(GoogLeNet, 224),
    **{
        name: ImageModel(partial(SqueezeNet, version=version), 224)
        for name, version in SQUEEZENET_NAMES.items()
    },
    **{
        f"resnet{depth}": ImageModel(partial(SmallResNet, depth=depth))
        for depth in (8, 20, 32, 44, 56, 110, 1202)
    },
    **{
        f"resnet{depth}": ImageModel(partial(ResNet, depth=depth), 224)
        for depth in (18, 34, 50, 101, 152)
    },
    "densenet40": ImageModel(partial(SmallDenseNet, depth=40)),
    "densenet100": ImageModel(partial(SmallDenseNet, depth=100)),
    "densenet100_bc": ImageModel(
        partial(SmallDenseNet, depth=100, bottleneck=True, compression=0.5)
    ),
    **{
        f"densenet{depth}": ImageModel(partial(DenseNet, depth=depth), 224)
        for depth in (121, 169, 201, 264)
    },
    "darknet19": ImageModel(Darknet, 224),
    "darknet_small": ImageModel(partial(Darknet, stages=SMALL_DARKNET, stem_stride=2)),
}


def image_spec(name: str) -> ImageModel:
    """Returns the entry of `IMAGE_MODELS` with a name.

    Raises:
        InputError: for a name that is not in `IMAGE_MODELS`.
    """
    return errors.pick("model", name, IMAGE_MODELS)


def image_model(name: str, *, num_classes: int) -> nn.Module:
    """Builds the named image classifier with its defaults; raises the errors of `image_spec`.

    >>> image_model("lenet5", num_classes=10).num_classes
    10
    """
    return image_spec(name).build(num_classes=num_classes)
