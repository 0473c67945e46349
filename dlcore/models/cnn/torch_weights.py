"""Converts weights from and to PyTorch's names and layouts (`torch_names`).

Shapes: H W a filter or a map, I input and O output channels or features.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from dlcore.errors import InputError
from dlcore.models.cnn.torch_names import Family, family_of, name_of, rewritten
from dlcore.paths import leaves_by_path
from dlcore.types import Variables

# Every network takes images of this size, and its arrays have the same names at any other.
_SIDE = 64


def from_torch(model: nn.Module, arrays: Mapping[str, np.ndarray]) -> Variables:
    """Makes the variables of a model from arrays by torchvision's names.

    The number of classes, the channels of the images and the map that a dense layer reads follow
    the arrays, not the model. The scaling of images is not part of the weights: torchvision brings
    them to 0..1 and then each channel to mean 0 and deviation 1 on ImageNet; its GoogLeNet takes
    -1..1.

    Args:
        model: AlexNetOneTower, VGG, GoogLeNet with batch_norm, ResNet or DenseNet.
        arrays: arrays by name, such as `torch_files.read_torch_file` reads.

    Raises:
        InputError: for another model, or names and shapes that are not its own.
    """
    family = family_of(model)
    arrays = {rewritten(name, family.older): array for name, array in arrays.items()}
    arrays = {name: a for name, a in arrays.items() if not re.search(family.ignored, name)}
    leaves = _leaves(model, family, arrays)
    channels = _channels(family, leaves)
    wanted = {part.name: part for path in leaves for part in _parts(family, path, leaves[path])}
    _require(
        model,
        missing=[name for name in wanted if name not in arrays],
        unexpected=[name for name in arrays if name not in wanted],
        mismatched=[
            f"{name} is {arrays[name].shape}, not {_torch_shape(part)}"
            for name, part in wanted.items()
            if name in arrays and not _fits(arrays[name].shape, part, channels.get(part.path))
        ],
    )
    variables = {}
    for path in tqdm.tqdm(leaves, "converting weights", delay=2, leave=False):
        each = [
            _from_torch(part, arrays[part.name], channels.get(part.path))
            for part in _parts(family, path, leaves[path])
        ]
        variables[path] = np.stack(each) if "/rest/" in path else each[0]
    return flax.traverse_util.unflatten_dict(variables, sep="/")


def to_torch(model: nn.Module, variables: Variables) -> dict[str, np.ndarray]:
    """Returns the arrays of a model by torchvision's names: the inverse of `from_torch`.

    Args:
        model: as for `from_torch`.
        variables: its "params" and "batch_stats". A flattened map is taken to be square.

    Raises:
        InputError: for another model, or variables that are not its own.
    """
    family = family_of(model)
    leaves = leaves_by_path(variables)
    own = _leaves(model, family, {})
    _require(
        model,
        missing=[path for path in own if path not in leaves],
        unexpected=[path for path in leaves if path not in own],
    )
    channels = _channels(family, leaves)
    arrays = {}
    for path, leaf in tqdm.tqdm(leaves.items(), "converting weights", delay=2, leave=False):
        values = np.asarray(leaf) if "/rest/" in path else np.asarray(leaf)[None]
        for part, value in zip(_parts(family, path, leaf), values, strict=True):
            arrays[part.name] = _to_torch(part, value, channels.get(part.path))
    return arrays


class _Part(NamedTuple):
    """A leaf, or a slice of a stacked one: its path, shape and name in PyTorch."""

    path: str
    shape: tuple[int, ...]
    name: str


def _leaves(
    model: nn.Module, family: Family, arrays: Mapping[str, np.ndarray]
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of the model by path, with the file's image channels and classes."""
    stem = arrays.get(name_of(family, f"params/{family.stem}/kernel"))
    bias = arrays.get(name_of(family, "params/output/bias"))
    channels = stem.shape[1] if stem is not None and stem.ndim == 4 else 3
    classes = len(bias) if bias is not None and bias.ndim == 1 else model.num_classes
    images = jax.ShapeDtypeStruct((1, _SIDE, _SIDE, channels), jnp.float32)
    shapes = jax.eval_shape(model.clone(num_classes=classes).init, jax.random.key(0), images)
    return leaves_by_path(shapes)


def _parts(family: Family, path: str, leaf: jax.Array | jax.ShapeDtypeStruct) -> list[_Part]:
    if "/rest/" in path:
        paths = [path.replace("/rest/", f"/block_{1 + i}/") for i in range(leaf.shape[0])]
        return [_Part(each, leaf.shape[1:], name_of(family, each)) for each in paths]
    path = path.replace("/first/", "/block_0/")
    return [_Part(path, leaf.shape, name_of(family, path))]


def _channels(
    family: Family, leaves: Mapping[str, jax.Array | jax.ShapeDtypeStruct]
) -> dict[str, int]:
    """Returns the channels of the flattened map that a dense kernel reads, by its path."""
    return {
        f"params/{dense}/kernel": leaves[f"params/{convolution}/kernel"].shape[-1]
        for dense, convolution in family.flattened.items()
    }


def _torch_shape(part: _Part) -> tuple[int, ...]:
    if not part.path.endswith("/kernel"):
        return part.shape
    return (part.shape[-1], part.shape[-2], *part.shape[:-2])


def _fits(shape: tuple[int, ...], part: _Part, channels: int | None) -> bool:
    """Returns whether PyTorch's array of that shape fits; a flattened map may have any size."""
    if channels is None or len(shape) != 2:
        return shape == _torch_shape(part)
    pixels, rest = divmod(shape[1], channels)
    return shape[0] == part.shape[-1] and rest == 0 and pixels == math.isqrt(pixels) ** 2


def _from_torch(part: _Part, array: np.ndarray, channels: int | None) -> np.ndarray:
    """Turns (O, I, H, W) into (H, W, I, O) and (O, I) into (I, O); reorders a flattened map."""
    array = np.array(array, np.float32, order="C")
    if not part.path.endswith("/kernel"):
        return array
    if channels is not None:
        side = math.isqrt(array.shape[1] // channels)
        whole = array.reshape(-1, channels, side, side)
        return whole.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    return np.ascontiguousarray(np.moveaxis(array, (0, 1), (-1, -2)))


def _to_torch(part: _Part, value: np.ndarray, channels: int | None) -> np.ndarray:
    if not part.path.endswith("/kernel"):
        return value.copy()
    if channels is not None:
        side = math.isqrt(value.shape[0] // channels)
        whole = value.reshape(side, side, channels, -1)
        return whole.transpose(3, 2, 0, 1).reshape(value.shape[1], -1)
    return np.ascontiguousarray(np.moveaxis(value, (-1, -2), (0, 1)))


def _require(model: nn.Module, **problems: list[str]) -> None:
    """Raises for names that are missing, unexpected or of another shape."""
    if any(problems.values()):
        listed = "; ".join(
            f"{len(names)} {kind}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
            for kind, names in problems.items()
            if names
        )
        raise InputError(
            f"these weights are not those of {type(model).__name__} as it was built: {listed}; "
            "choose the model and its options that they are of"
        )
