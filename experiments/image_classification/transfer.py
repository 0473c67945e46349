"""Weights from elsewhere and for elsewhere: --init_from, --transfer and --export."""

import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch, optim
from dlcore.errors import InputError
from dlcore.models.cnn.torch_names import OUTPUT, family_of
from dlcore.models.cnn.torch_weights import find_weights, from_torch, to_torch
from dlcore.models.torch_files import read_torch_file, write_torch_file
from dlcore.paths import leaves_by_path
from dlcore.train.transplant import transplant
from dlcore.types import TrainState, Variables

TOP = 2  # modules before the output that --transfer=top trains


def frozen_rules(
    config: Any, model: nn.Module, image_shape: tuple[int, ...]
) -> tuple[tuple[str, bool], ...]:
    """Returns which parameters --transfer leaves as they are, as path rules.

    Raises:
        InputError: without --init_from, and for a model that has too few modules.
    """
    if config.transfer is None:
        return ()
    if config.init_from is None:
        raise InputError("--transfer without --init_from would freeze random weights; give both")
    if config.transfer == "all":
        return ()
    modules = _modules(model, image_shape)
    body = [name for name in modules if name != "output"]
    trained = body[-TOP:] if config.transfer == "top" else ()
    if not [name for name in body if name not in trained]:
        raise InputError(f"{config.model} has only {len(body)} modules; --transfer=all trains them")
    return (
        (OUTPUT.pattern, False),
        *((f"^{re.escape(name)}/", False) for name in trained),
        ("", True),
    )


def adopt(
    state: TrainState, config: Any, model: nn.Module, image_shape: tuple[int, ...]
) -> TrainState:
    """Returns the state with the weights of --init_from, and says what matched.

    Where the first layer's images have other channels, see `fit_channels`. An average of weights
    that is kept of the new run starts at the new weights.

    Raises:
        InputError: when nothing can be read there, nothing matches, or --transfer would freeze
            what did not.
    """
    if config.init_from is None:
        return state
    variables, was = _read(config, model)
    source = leaves_by_path(variables)
    target = {"params": state.params, **state.model_state}
    first = _modules(model, image_shape)[0]
    source |= _fitted(source, leaves_by_path(target), f"params/{first}/", was, image_shape[-1])
    rules: tuple[tuple[str, str | None], ...] = (("^(.*)$", r"\1"),)
    if config.transfer is not None:
        rules = (("^params/(.*/)?output/", None), *rules)
    new, matches = transplant(source, target, rules)
    if all(OUTPUT.search(path) for path in matches.restored):
        raise InputError(
            f"no weight of {config.init_from} fits {config.model}: "
            f"it has {_some(source)}; the model wants {_some(leaves_by_path(target))}"
        )
    frozen = frozen_rules(config, model, image_shape)
    lost = [
        path
        for path in [*matches.missing, *matches.mismatched]
        if is_frozen(path.partition("/")[2], frozen)
    ]
    if lost:
        raise InputError(
            f"--transfer={config.transfer} would freeze weights that are not in "
            f"{config.init_from}: {_some(lost)} "
            f"({matches.mismatched.get(lost[0], 'it has none of this name')}); train them by "
            "--transfer=all, or choose the options of the model that the weights are of"
        )
    launch.say(f"{config.init_from}: {matches}")
    params = new.pop("params")
    return state.replace(
        params=params, model_state=new, opt_state=optim.start_average(state.opt_state, params)
    )


def export(variables: Variables, config: Any, model: nn.Module) -> None:
    """Writes the weights to --export."""
    if config.export is not None:
        write_torch_file(config.export, to_torch(model, variables))
        launch.say(f"weights: {config.export}")


def fit_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Returns a first layer's kernel [..., I, O] for images of other channels.

    Grey images give the response that they gave as images of three equal colours: kernels of
    colours are summed for one channel, and those of one channel are shared evenly among the
    colours. A channel of transparency starts at 0, and one that is not wanted goes.

    Args:
        kernel: of I = 1, 3 or 4 channels.
        channels: 1, 3 or 4.

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


def _fitted(
    source: Mapping[str, Any], target: Mapping[str, Any], first: str, was: int, channels: int
) -> dict[str, np.ndarray]:
    """Returns those kernels of the first layer in `source` that need other channels, fitted.

    A convolution has them as [H, W, I, O], a dense layer as [H W I, O].
    """
    fitted: dict[str, np.ndarray] = {}
    if was == channels:
        return fitted
    for path, wanted in target.items():
        kernel = source.get(path)
        if not path.startswith(first) or kernel is None or kernel.ndim < 2:
            continue
        pixels, rest = divmod(kernel.shape[-2], was)
        if rest or (*kernel.shape[:-2], pixels * channels, kernel.shape[-1]) != wanted.shape:
            continue
        by_channel = np.asarray(kernel).reshape(*kernel.shape[:-2], pixels, was, -1)
        fitted[path] = fit_channels(by_channel, channels).reshape(wanted.shape)
        launch.say(f"{path}: of {was} channels, fitted to images of {channels}")
    return fitted


def is_frozen(path: str, rules: tuple[tuple[str, bool], ...]) -> bool:
    """Returns what the first rule says whose expression is found in the path; False without."""
    return next((frozen for pattern, frozen in rules if re.search(pattern, path)), False)


def _modules(model: nn.Module, image_shape: tuple[int, ...]) -> list[str]:
    """Returns the names of the model's modules with parameters, in order of execution."""
    modules: list[str] = []

    def trace(images: jax.Array) -> None:
        # Within a trace the modules are in order of execution; trees sort them.
        modules.extend(model.init(jax.random.key(0), images)["params"])

    jax.eval_shape(trace, jnp.zeros((1, *image_shape)))
    return modules


def _read(config: Any, model: nn.Module) -> tuple[Variables, int]:
    """Returns what a run reports, or a file of PyTorch's holds, and the channels of its images."""
    path = pathlib.Path(config.init_from).expanduser()
    if path.is_dir():
        if config.init_prefix is not None:
            raise InputError("--init_prefix is for files of weights; a run has what it reported")
        trained = launch.load(path)
        return trained.variables, getattr(trained.info, "image_shape", (1,))[-1]
    if not path.exists():
        raise InputError(
            f"--init_from: there is neither a file nor a folder {path}; give the folder of a run, "
            "or a .safetensors or .pth file"
        )
    output = config.transfer is None
    found = find_weights(model, read_torch_file(path), config.init_prefix or "", output=output)
    launch.say(f"{path}: {found}")
    variables = from_torch(model, found.arrays, output=output)
    stem = leaves_by_path(variables)[f"params/{family_of(model).stem}/kernel"]
    return variables, stem.shape[-2]


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
