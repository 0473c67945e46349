"""Architectures, one file each: Linen modules (images, train) -> (logits, activations by name)."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn

from dlcore import errors
from dlcore.models.cnn.lenet import LeNet5 as LeNet5
from dlcore.models.cnn.lenet import LeNet5Modern as LeNet5Modern
from dlcore.models.cnn.resnet import SmallResNet as SmallResNet
from dlcore.models.mlp import MLP as MLP


class ImageModel(NamedTuple):
    """An image classifier that can be chosen by name.

    Attributes:
        build: makes the module; takes `num_classes` and the module's other attributes by keyword.
        image_size: the height and width that it was designed for, None for the data set's own.
    """

    build: Callable[..., nn.Module]
    image_size: int | None = None


IMAGE_MODELS: dict[str, ImageModel] = {
    "mlp": ImageModel(MLP),
    "lenet5": ImageModel(LeNet5Modern, 32),
    "lenet5_paper": ImageModel(LeNet5, 32),
    **{
        f"resnet{depth}": ImageModel(functools.partial(SmallResNet, depth=depth))
        for depth in (20, 32, 44, 56, 110)
    },
}


def image_spec(name: str) -> ImageModel:
    """How to build the image classifier of that name.

    Raises:
        InputError: for a name that is not in `IMAGE_MODELS`.
    """
    return errors.pick("model", name, IMAGE_MODELS)


def image_model(name: str, *, num_classes: int) -> nn.Module:
    """The image classifier of that name with its defaults; errors as `image_spec`."""
    return image_spec(name).build(num_classes=num_classes)
