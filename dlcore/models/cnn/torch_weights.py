"""Converts weights between dlcore's and PyTorch's names and layouts (`torch_names`).

Shapes: H W a filter or a map, I input and O output channels or features.
"""

import collections
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from dlcore.errors import InputError, choose
from dlcore.models.cnn.torch_names import OUTPUT, Family, family_of, name_of, rewritten
from dlcore.paths import leaves_by_path
from dlcore.types import Variables

# Every network takes images of this size, and its arrays have the same names at any other.
_SIDE = 64
# What PyTorch's own wrappers of modules put into the names of those that they wrap.
_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# The arrays that the layers of PyTorch have here; profilers and averages add others.
_LAYER = re.compile(r"(?:^|\.)(?:weight|bias|running_mean|running_var)$")
_AVERAGE = re.compile(r"(?:^|[._])(?:ema|swa|averaged?)(?=[._])", re.IGNORECASE)


class Found(NamedTuple):
    """A model's own arrays among those of a file.

    Attributes:
        arrays: the arrays by the names that `from_torch` knows.
        prefix: the prefix of these names in the file, such as "model._orig_mod.".
        others: further prefixes under which the file has as many of the names.
        extra: names in the file that are not the model's, such as those of other modules that were
            trained with it, or of measurements and counters.
    """

    arrays: dict[str, np.ndarray]
    prefix: str
    others: tuple[str, ...]
    extra: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.arrays)} arrays" + (f" under {self.prefix}" if self.prefix else "")]
        if self.others:
            lines.append(f"as many are under {', '.join(self.others)}; --init_prefix chooses")
        if self.extra:
            lines.append(f"{len(self.extra)} others are left out: {_some(self.extra)}")
        return "; ".join(lines)


def find_weights(
    model: nn.Module, arrays: Mapping[str, np.ndarray], within: str = "", *, output: bool = True
) -> Found:
    """Finds the arrays of a model in a file, whichever prefix their names share there.

    The prefix is the one under which most of the model's names are found, such as the name of the
    dict that holds them (`state_dict.`), of a module that wraps the model (`module.`, `model.`) or
    several of these. Among prefixes with equally many names, averages (`model_ema.`) come last.
    Names that PyTorch's own wrappers, such as torch.compile, add within the model are removed.

    Args:
        model: as for `from_torch`.
        arrays: arrays by name, such as `torch_files.read_torch_file` reads.
        within: the beginning of the prefix; without it any prefix is taken.
        output: whether the output layers are wanted; if not, arrays in their place or beside the
            model's modules are left out.

    Raises:
        InputError: for any other model, or when no name has that beginning.
    """
    family = family_of(model)
    start = within and within.removesuffix(".") + "."
    inside = [name for name in arrays if name.startswith(start)]
    if start and not inside:
        raise choose("prefix of weights", within, {name.partition(".")[0] for name in arrays})
    leaves = _leaves(model, family, {})
    names = {part.name: path for path in leaves for part in _parts(family, path, leaves[path])}
    # The names that are found under each prefix, the longest first and in the order of the file.
    fitting: collections.Counter[str] = collections.Counter()
    for name in inside:
        places = [0, *(match.end() for match in re.finditer(r"\.", name))]
        fitting.update(
            name[:place]
            for place in reversed(places)
            if place >= len(start) and _plain(name[place:], family) in names
        )

    def order(prefix: str) -> tuple[int, bool, int]:
        under = sum(name.startswith(prefix) for name in inside)
        return -fitting[prefix], bool(_AVERAGE.search(prefix)), under

    prefix, *rest = sorted(fitting, key=order) or [start]
    others = tuple(
        other
        for other in rest
        if fitting[other] == fitting[prefix] and not prefix.startswith(other)
    )
    wanted = {name for name, path in names.items() if output or not OUTPUT.search(path)}
    heads = tuple({name.rpartition(".")[0] + "." for name in names.keys() - wanted})
    modules = {name.partition(".")[0] for name in wanted}

    def is_own(name: str) -> bool:
        """Tells whether a name is the model's, or shows that the weights are of another model."""
        if name in wanted or not _LAYER.search(name):
            return name in wanted
        return output or (not name.startswith(heads) and name.partition(".")[0] in modules)

    own: dict[str, np.ndarray] = {}
    extra = []
    for name, array in arrays.items():
        plain = _plain(name.removeprefix(prefix), family)
        if name.startswith(others) or re.search(family.ignored, plain):
            continue
        if name.startswith(prefix) and is_own(plain):
            own[plain] = array
        else:
            extra.append(name)
    return Found(own, prefix, others, tuple(extra))


def from_torch(
    model: nn.Module, arrays: Mapping[str, np.ndarray], *, output: bool = True
) -> Variables:
    """Makes the variables of a model from arrays by torchvision's names.

    The arrays, not the model, determine the number of classes, the channels of the images and the
    map that a dense layer reads. The scaling of images is not part of the weights: torchvision
    scales them to 0..1 and then each channel to mean 0 and deviation 1 on ImageNet; its GoogLeNet
    takes -1..1.

    Args:
        model: AlexNetOneTower, VGG, GoogLeNet with batch_norm, ResNet or DenseNet.
        arrays: arrays by name, such as `torch_files.read_torch_file` reads; see `find_weights` for
            allowed prefixes and further names.
        output: whether the output layers are wanted; if not, the variables have none, and the
            arrays need not have them.

    Raises:
        InputError: for any other model, or names and shapes that are not its own.
    """
    family = family_of(model)
    arrays = find_weights(model, arrays, output=output).arrays
    leaves = _leaves(model, family, arrays)
    if not output:
        leaves = {path: leaf for path, leaf in leaves.items() if not OUTPUT.search(path)}
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
        variables: the model's "params" and "batch_stats". A flattened map is assumed to be square.

    Raises:
        InputError: for any other model, or variables that are not its own.
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


def _plain(name: str, family: Family) -> str:
    """Returns a name in a file in the form of today's PyTorch, for a model without wrappers."""
    return rewritten(_WRAPPERS.sub("", name), family.older)


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


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
    """Returns whether PyTorch's array of a shape fits; a flattened map may have any size."""
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
    """Raises InputError for names that are missing, unexpected or of another shape."""
    if any(problems.values()):
        listed = "; ".join(
            f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names
        )
        raise InputError(
            f"these weights are not those of {type(model).__name__} as it was built: {listed}; "
            "choose the model and the options that they belong to"
        )
