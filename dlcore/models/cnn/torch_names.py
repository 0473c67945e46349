"""The names that torchvision and timm use for the arrays of networks that dlcore has too.

Rules are pairs (regular expression, replacement) that turn a path of dlcore into PyTorch's name:
each rule in turn rewrites all its matches. In a replacement {1} is the first group of the
expression, and {1+1} is the number in that group plus one. The stacked blocks of a residual network
are separated first: `stage_0/first` and `stage_0/rest` become `stage_0/block_0`, `stage_0/block_1`
and so on.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn

from dlcore.errors import InputError
from dlcore.models.cnn.alexnet import AlexNetOneTower
from dlcore.models.cnn.densenet import DenseNet
from dlcore.models.cnn.googlenet import GoogLeNet
from dlcore.models.cnn.resnet import ResNet
from dlcore.models.cnn.squeezenet import FIRES, VERSIONS, SqueezeNet
from dlcore.models.cnn.vgg import CONFIGURATIONS, VGG

Rules = Sequence[tuple[str, str]]
_LEAVES: Rules = ((r"/(kernel|scale)$", "/weight"), (r"/(mean|var)$", "/running_{1}"), ("/", "."))
# The paths of the layers that give the classes, those of auxiliary heads too.
OUTPUT = re.compile(r"(?:^|/)output/")
# PyTorch's batch normalisations count their steps, for an average over all steps that no model
# here uses.
_COUNTERS = r"\.num_batches_tracked$"


class Family(NamedTuple):
    """The rules by which the names in one family of networks become PyTorch's.

    Attributes:
        rules: the rules on the paths of the network's arrays.
        stem: the path of the convolution that sees the image.
        flattened: the dense layers that read a flattened map, each with the convolution whose
            channels it reads: PyTorch flattens channel by channel, dlcore pixel by pixel.
        only: the values of attributes that PyTorch's network has; the model must have the same.
        older: rules that turn the names of older files into today's.
        ignored: a regular expression for names in a file that the model does not need.
    """

    rules: Rules
    stem: str
    flattened: Mapping[str, str] = {}
    only: Mapping[str, Any] = {}
    older: Rules = ()
    ignored: str = _COUNTERS


def _alexnet(model: nn.Module) -> Family:
    places = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}
    rules = [(f"^{name}/", f"features/{place}/") for name, place in places.items()]
    rules += [("^fc6/", "classifier/1/"), ("^fc7/", "classifier/4/"), ("^output/", "classifier/6/")]
    return Family(rules, "conv1", {"fc6": "conv5"})


def _vgg(model: nn.Module) -> Family:
    rules, place, last = [], 0, ""
    for stage, sizes in enumerate(CONFIGURATIONS[model.config], start=1):
        for layer, _ in enumerate(sizes, start=1):
            last = f"{stage}_{layer}"
            rules.append((f"^conv{last}/", f"features/{place}/"))
            rules.append((f"^norm{last}/", f"features/{place + 1}/"))
            place += 3 if model.batch_norm else 2  # the convolution, its norm and its rectifier
        place += 1  # the pool
    rules += [("^fc6/", "classifier/0/"), ("^fc7/", "classifier/3/"), ("^output/", "classifier/6/")]
    return Family(rules, "conv1_1", {"fc6": f"conv{last}"})


def _googlenet(model: nn.Module) -> Family:
    rules = (
        ("^conv2/", "conv3/"),
        ("^conv2_reduce/", "conv2/"),
        ("^inception_", "inception"),
        ("/conv1x1/", "/branch1/"),
        ("/reduce3x3/", "/branch2/0/"),
        ("/conv3x3/", "/branch2/1/"),
        ("/reduce5x5/", "/branch3/0/"),
        ("/conv5x5/", "/branch3/1/"),
        ("/project/", "/branch4/1/"),
        ("/norm/", "/bn/"),
        (r"^auxiliary_(\d)/", "aux{1+1}/"),
        ("/hidden/", "/fc1/"),
        ("/output/", "/fc2/"),
        ("^output/", "fc/"),
    )
    heads = [f"auxiliary_{head}" for head in range(2)] if model.auxiliary else []
    return Family(
        rules,
        "conv1/conv",
        {f"{head}/hidden": f"{head}/conv/conv" for head in heads},
        only={"batch_norm": True},
        ignored=_COUNTERS if model.auxiliary else rf"{_COUNTERS}|^aux\d\.",
    )


def _resnet(model: nn.Module) -> Family:
    rules = (
        ("^stem/", "conv1/"),
        ("^stem_norm/", "bn1/"),
        (r"^stage_(\d)/block_(\d+)/", "layer{1+1}/{2}/"),
        (r"/conv_(\d)/", "/conv{1+1}/"),
        (r"/norm_(\d)/", "/bn{1+1}/"),
        ("/projection/", "/downsample/0/"),
        ("/projection_norm/", "/downsample/1/"),
        ("^output/", "fc/"),
    )
    return Family(rules, "stem", only={"version": 1, "shortcut": "projection"})


def _densenet(model: nn.Module) -> Family:
    rules = (
        ("^stem/", "features/conv0/"),
        ("^stem_norm/", "features/norm0/"),
        (r"^block_(\d)_layer_(\d+)/", "features/denseblock{1+1}/denselayer{2+1}/"),
        (r"^transition_(\d)/", "features/transition{1+1}/"),
        (r"/(norm|conv)_(\d)/", "/{1}{2+1}/"),
        ("^final_norm/", "features/norm5/"),
        ("^output/", "classifier/"),
    )
    older = ((r"(\.denselayer\d+\.(?:norm|conv))\.(\d)\.", "{1}{2}."),)
    return Family(rules, "stem", only={"bottleneck": True}, older=older)


def _squeezenet(model: nn.Module) -> Family:
    rules, place = [("^conv1/", "features/0/"), ("^output/", "classifier/1/")], 2
    for layer in range(1, max(FIRES) + 1):
        if layer in FIRES:
            rules.append((f"^fire{layer}/", f"features/{place}/"))
            place += 1
        place += layer in VERSIONS[model.version].pools
    return Family(rules, "conv1")


_FAMILIES: dict[type[nn.Module], Callable[[nn.Module], Family]] = {
    AlexNetOneTower: _alexnet,
    VGG: _vgg,
    GoogLeNet: _googlenet,
    ResNet: _resnet,
    DenseNet: _densenet,
    SqueezeNet: _squeezenet,
}


def family_of(model: nn.Module) -> Family:
    """Returns the rules by which the names in a model become PyTorch's.

    Raises:
        InputError: when PyTorch has no such model, or has it only with other attributes.
    """
    if type(model) not in _FAMILIES:
        raise InputError(
            f"{type(model).__name__} has no counterpart in PyTorch whose names are known; "
            f"choose one of: {', '.join(sorted(kind.__name__ for kind in _FAMILIES))}"
        )
    family = _FAMILIES[type(model)](model)
    for name, value in family.only.items():
        if getattr(model, name) != value:
            raise InputError(
                f"PyTorch has {type(model).__name__} with {name}={value!r} only, not "
                f"{getattr(model, name)!r}; build the model with {name}={value!r}"
            )
    return family


def rewritten(path: str, rules: Rules) -> str:
    """Applies all rules to a path, one after another.

    >>> rewritten("stage_0/block_1/conv_0", [(r"^stage_(\\d)/block_(\\d)/", "layer{1+1}/{2}/")])
    'layer1/1/conv_0'
    """
    for expression, replacement in rules:

        def fill(match: re.Match[str], replacement: str = replacement) -> str:
            plus_one = re.sub(r"\{(\d)\+1\}", lambda m: str(int(match[int(m[1])]) + 1), replacement)
            return re.sub(r"\{(\d)\}", lambda m: match[int(m[1])], plus_one)

        path = re.sub(expression, fill, path)
    return path


def name_of(family: Family, path: str) -> str:
    """Returns PyTorch's name of the array at a path, which begins with the array's collection."""
    return rewritten(path.partition("/")[2], (*family.rules, *_LEAVES))
