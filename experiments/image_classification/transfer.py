"""Weights from elsewhere and for elsewhere: --init_from, --transfer and --export."""

import re
from typing import Any

import flax.linen as nn

from dlcore import launch
from dlcore.errors import InputError
from dlcore.launch.weights import fitted, modules_of, read_weights, some, taken_over
from dlcore.models.autoencoder import ENCODER
from dlcore.models.cnn.torch_names import OUTPUT
from dlcore.models.cnn.torch_weights import to_torch
from dlcore.models.torch_files import write_torch_file
from dlcore.paths import leaves_by_path
from dlcore.types import TrainState, Variables

TOP = 2  # modules before the output that --transfer=top trains
UNIT = 255.0  # the deviation that makes pixels 0 to 1, with the mean 0


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
    modules = modules_of(model, image_shape)
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

    Of a run whose net has an encoder, such as an autoencoder or an embedding, the encoder is taken
    but for its output. Where the first layer's images have other channels, see `fit_channels`. An
    average of weights that is kept of the new run starts at the new weights.

    Raises:
        InputError: when nothing can be read there, nothing matches, or --transfer would freeze
            what did not.
    """
    if config.init_from is None:
        return state
    variables, was, scaling = read_weights(
        config.init_from, config.init_prefix, model, output=config.transfer is None
    )
    source = encoder_of(leaves_by_path(variables))
    if (scaling.deviation == UNIT).all() and not scaling.mean.any() and config.moments != "unit":
        launch.say(
            f"warning: {config.init_from} was trained on pixels from 0 to 1, but these are "
            "scaled by "
            f"--moments={config.moments}; give --moments=unit to scale them the same way"
        )
    target = {"params": state.params, **state.model_state}
    first = modules_of(model, image_shape)[0]
    source |= fitted(source, leaves_by_path(target), f"params/{first}/", was, image_shape[-1])
    rules: tuple[tuple[str, str | None], ...] = (("^(.*)$", r"\1"),)
    if config.transfer is not None:
        rules = (("^params/(.*/)?output/", None), *rules)
    new, matches = taken_over(state, source, rules)
    if all(OUTPUT.search(path) for path in matches.restored):
        raise InputError(
            f"no weight of {config.init_from} fits {config.model}: "
            f"it has {some(source)}; the model wants {some(leaves_by_path(target))}"
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
            f"{config.init_from}: {some(lost)} "
            f"({matches.mismatched.get(lost[0], 'it has none of this name')}); train them by "
            "--transfer=all, or choose the options of the model that the weights are of"
        )
    launch.say(f"{config.init_from}: {matches}")
    return new


def encoder_of(source: dict[str, Any]) -> dict[str, Any]:
    """Returns the weights by path of the encoder alone, less its output, where there is one."""
    inside = re.compile(rf"^([^/]+)/{ENCODER}/")
    found = {
        inside.sub(r"\1/", path): leaf
        for path, leaf in source.items()
        if inside.search(path) and not OUTPUT.search(path)
    }
    return found or source


def export(variables: Variables, config: Any, model: nn.Module) -> None:
    """Writes the weights to --export."""
    if config.export is not None:
        write_torch_file(config.export, to_torch(model, variables))
        launch.say(f"weights: {config.export}")


def is_frozen(path: str, rules: tuple[tuple[str, bool], ...]) -> bool:
    """Returns what the first rule says whose expression is found in the path; False without."""
    return next((frozen for pattern, frozen in rules if re.search(pattern, path)), False)
