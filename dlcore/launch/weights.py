"""Weights that a run starts from: those of another run, or of a PyTorch file."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlcore import optim
from dlcore.errors import InputError
from dlcore.launch.loading import load
from dlcore.launch.process import say
from dlcore.models.cnn.googlenet import GoogLeNet
from dlcore.models.cnn.torch_names import family_of
from dlcore.models.cnn.torch_weights import find_weights, from_torch
from dlcore.models.torch_files import read_torch_file
from dlcore.paths import Rules, leaves_by_path
from dlcore.train.transplant import Report, transplant
from dlcore.types import TrainState, Variables


class Scaling(NamedTuple):
    """The numbers that scale pixels of 0..255 to a network's inputs: (x - mean) / deviation.

    Attributes:
        mean: float [C], the mean of each channel.
        deviation: float [C], the standard deviation of each channel.
    """

    mean: np.ndarray
    deviation: np.ndarray


# Of ImageNet's red, green and blue, as torchvision's weights expect images to be scaled.
IMAGENET = Scaling(np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375]))
# torchvision's GoogLeNet has the weights of another program, whose images are -1..1.
_MINUS_ONE_TO_ONE = Scaling(np.full(3, 127.5), np.full(3, 127.5))


class Weights(NamedTuple):
    """The weights of an image model, as they were found.

    Attributes:
        variables: the variables of the model.
        channels: the number of channels of its images.
        scaling: the scaling of its images.
    """

    variables: Variables
    channels: int
    scaling: Scaling


def read_weights(
    source: str, prefix: str | None, model: nn.Module, *, output: bool = True
) -> Weights:
    """Returns the weights that a run reports, or those in a PyTorch file.

    Args:
        source: the folder of a run, or a .safetensors or .pth file (--init_from).
        prefix: the prefix of the names in a file (--init_prefix).
        model: the image model whose names a file has.
        output: whether to read a file's output layer too.

    Raises:
        InputError: when there are no weights, or they cannot be read.
    """
    path = pathlib.Path(source).expanduser()
    if path.is_dir():
        if prefix is not None:
            raise InputError("--init_prefix is for files of weights, not for runs")
        trained = load(path)
        channels = getattr(trained.info, "image_shape", (1,))[-1]
        scaling = Scaling(np.zeros(channels), np.full(channels, 255.0))
        if hasattr(trained.info, "deviation"):
            # A channel of one value everywhere has no deviation.
            deviation = np.maximum(trained.info.deviation, 1.0)
            scaling = Scaling(trained.info.mean, deviation)
        return Weights(trained.variables, channels, scaling)
    if not path.exists():
        raise InputError(
            f"--init_from: there is neither a file nor a folder {path}; give the folder of a run, "
            "or a .safetensors or .pth file"
        )
    found = find_weights(model, read_torch_file(path), prefix or "", output=output)
    say(f"{path}: {found}")
    variables = from_torch(model, found.arrays, output=output)
    stem = leaves_by_path(variables)[f"params/{family_of(model).stem}/kernel"]
    scaling = _MINUS_ONE_TO_ONE if isinstance(model, GoogLeNet) else IMAGENET
    return Weights(variables, stem.shape[-2], scaling)


def taken_over(
    state: TrainState, source: Any, rules: Rules[str | None]
) -> tuple[TrainState, Report]:
    """Returns the state with weights taken over by the rules of `transplant`, and what matched.

    Where the new run keeps an average of its weights, it starts at the new weights.
    """
    new, report = transplant(source, {"params": state.params, **state.model_state}, rules)
    params = new.pop("params")
    opt_state = optim.start_average(state.opt_state, params)
    return state.replace(params=params, model_state=new, opt_state=opt_state), report


def adopt_inside(
    state: TrainState,
    source: str,
    prefix: str | None,
    network: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    module: str,
    name: str,
) -> TrainState:
    """Returns the state of a larger network with weights for the classifier inside it.

    From a run of the classifier or a PyTorch file this takes only the classifier's module; from a
    run of the larger network it takes everything that fits. It prints what matched.

    Args:
        state: the state of a new run.
        source: the folder of a run, or a file (--init_from).
        prefix: the prefix of the names in a file (--init_prefix).
        network: the classifier.
        image_shape: the shape (H, W, C) of its images.
        module: the name of the classifier's module in the larger network.
        name: the name of the classifier, for errors.

    Raises:
        InputError: when the source cannot be read, or nothing matches.
    """
    variables, was, _ = read_weights(source, prefix, network, output=False)
    found = leaves_by_path(variables)
    rules: Rules[str | None] = ((rf"^([^/]+)/{module}/(.*)$", r"\1/\2"),)
    target = leaves_by_path({"params": state.params, **state.model_state})
    first, inside = modules_of(network, image_shape)[0], f"/{module}/"
    if any(path.startswith(f"params/{module}/") for path in found):
        rules, first = (("^(.*)$", r"\1"),), f"{module}/{first}"
    else:
        target = {path.replace(inside, "/", 1): leaf for path, leaf in target.items()}
    found |= fitted(found, target, f"params/{first}/", was, image_shape[-1])
    new, matches = taken_over(state, found, rules)
    if not matches.restored:
        raise InputError(
            f"no weight of {source} fits {name}: it has {some(found)}; the {module} needs "
            f"{some(target)}"
        )
    # A classifier's head, and layers behind a map that is read, are not wanted.
    say(
        f"{source}: restored {len(matches.restored)} of {len(target)} leaves; "
        f"{len(matches.missing)} are not there, {len(matches.mismatched)} have other shapes, "
        f"{len(matches.unused)} are not used"
    )
    return new


def fit_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Returns a first layer's kernel [..., I, O] for images with another number of channels.

    A grey image gets the response that it got as an image of three equal colours: kernels of
    colours are summed for one channel, and a kernel of one channel is shared evenly among the
    colours. A new transparency channel starts at 0, and one that is not needed is dropped.

    Args:
        kernel: the kernel for I = 1, 3 or 4 channels.
        channels: the new number of channels, 1, 3 or 4.

    >>> fit_channels(np.ones((1, 1, 3, 2)), 1).ravel().tolist()
    [3.0, 3.0]
    """
    colours = kernel[..., :3, :]
    if channels == 1:
        return colours.sum(axis=-2, keepdims=True)
    if colours.shape[-2] == 1:
        colours = np.repeat(colours / 3, 3, axis=-2)
    transparency = np.zeros_like(colours[..., : channels - 3, :])
    return np.concatenate([colours, transparency], axis=-2)


def fitted(
    source: Mapping[str, Any], target: Mapping[str, Any], first: str, was: int, channels: int
) -> dict[str, np.ndarray]:
    """Returns the first layer's kernels in `source`, fitted to the wanted number of channels.

    A convolution has kernels [H, W, I, O], a dense layer [H W I, O]; see `fit_channels`.

    Args:
        source: the weights by path.
        target: the weights that they are to replace, by the same paths.
        first: the beginning of the paths of the first layer.
        was: the number of channels of the source's images.
        channels: the number of channels of the images now.
    """
    found: dict[str, np.ndarray] = {}
    if was == channels:
        return found
    for path, wanted in target.items():
        kernel = source.get(path)
        if not path.startswith(first) or kernel is None or kernel.ndim < 2:
            continue
        pixels, rest = divmod(kernel.shape[-2], was)
        if rest or (*kernel.shape[:-2], pixels * channels, kernel.shape[-1]) != wanted.shape:
            continue
        by_channel = np.asarray(kernel).reshape(*kernel.shape[:-2], pixels, was, -1)
        found[path] = fit_channels(by_channel, channels).reshape(wanted.shape)
        say(f"{path}: fitted from {was} channels to images of {channels}")
    return found


def modules_of(model: nn.Module, image_shape: tuple[int, ...]) -> list[str]:
    """Returns the names of the model's modules with parameters, in order of execution."""
    modules: list[str] = []

    def trace(images: jax.Array) -> None:
        # Within a trace the modules are in order of execution; trees sort them.
        modules.extend(model.init(jax.random.key(0), images)["params"])

    jax.eval_shape(trace, jnp.zeros((1, *image_shape)))
    return modules


def some(names: Iterable[str]) -> str:
    """Returns the first three names, and dots for the others."""
    names = list(names)
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
