"""Weights from elsewhere and for elsewhere: --init_from, --transfer and --export."""

import pathlib
import re
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore import launch, paths
from dlcore.errors import InputError
from dlcore.models.cnn.torch_weights import from_torch, to_torch
from dlcore.models.torch_files import read_torch_file, write_torch_file
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
    modules: list[str] = []

    def trace(images: jax.Array) -> None:
        # Within a trace the modules are in order of execution; trees sort them.
        modules.extend(model.init(jax.random.key(0), images)["params"])

    jax.eval_shape(trace, jnp.zeros((1, *image_shape)))
    body = [name for name in modules if name != "output"]
    trained = ["output", *(body[-TOP:] if config.transfer == "top" else ())]
    if not [name for name in body if name not in trained]:
        raise InputError(f"{config.model} has only {len(body)} modules; --transfer=all trains them")
    return (*((f"^{re.escape(name)}/", False) for name in trained), ("", True))


def adopt(state: TrainState, config: Any, model: nn.Module) -> TrainState:
    """Returns the state with the weights of --init_from, and says what matched.

    Raises:
        InputError: when nothing can be read there, or nothing matches.
    """
    if config.init_from is None:
        return state
    source = _read(pathlib.Path(config.init_from), model)
    target = {"params": state.params, **state.model_state}
    rules: tuple[tuple[str, str | None], ...] = (("^(.*)$", r"\1"),)
    if config.transfer is not None:
        rules = (("^params/output/", None), *rules)
    new, matches = transplant(source, target, rules)
    if all(path.startswith("params/output/") for path in matches.restored):
        raise InputError(
            f"no weight of {config.init_from} fits {config.model}: "
            f"it has {_some(paths.leaves_by_path(source))}; "
            f"the model wants {_some(paths.leaves_by_path(target))}"
        )
    launch.say(f"{config.init_from}: {matches}")
    params = new.pop("params")
    return state.replace(params=params, model_state=new)


def export(variables: Variables, config: Any, model: nn.Module) -> None:
    """Writes the weights to --export."""
    if config.export is not None:
        write_torch_file(config.export, to_torch(model, variables))
        launch.say(f"weights: {config.export}")


def _read(path: pathlib.Path, model: nn.Module) -> Variables:
    """Returns the variables that a run reports, or those of a file of PyTorch's."""
    if path.is_file():
        return from_torch(model, read_torch_file(path))
    return launch.load(path).variables


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
