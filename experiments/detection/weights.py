"""Weights that a detector starts from: --init_from."""

from typing import Any

import flax.linen as nn

from dlcore import launch
from dlcore.errors import InputError
from dlcore.launch.weights import fitted, modules_of, read_weights, some, taken_over
from dlcore.models.detection.body import BODY
from dlcore.paths import leaves_by_path
from dlcore.types import TrainState

# Where the parameters of the body lie, and where they lie in a classifier.
_OF_BODY = rf"^([^/]+)/{BODY}/(.*)$"


def adopt(
    state: TrainState, config: Any, network: nn.Module, image_shape: tuple[int, int, int]
) -> TrainState:
    """Returns the state with the weights of --init_from, and says what matched.

    Of a classifier, its own run or a file of PyTorch's, the body is taken, of a run of this job all
    that fits.

    Args:
        state: of a new run.
        config: of the job.
        network: the classifier that the body is of.
        image_shape: (S, S, C).

    Raises:
        InputError: when nothing can be read there, or nothing matches.
    """
    if config.init_from is None:
        return state
    variables, was = read_weights(config.init_from, config.init_prefix, network, output=False)
    source = leaves_by_path(variables)
    rules: tuple[tuple[str, str | None], ...] = ((_OF_BODY, r"\1/\2"),)
    target = leaves_by_path({"params": state.params, **state.model_state})
    first, inside = modules_of(network, image_shape)[0], f"/{BODY}/"
    if any(path.startswith(f"params/{BODY}/") for path in source):
        rules, first = (("^(.*)$", r"\1"),), f"{BODY}/{first}"
    else:
        target = {path.replace(inside, "/", 1): leaf for path, leaf in target.items()}
    source |= fitted(source, target, f"params/{first}/", was, image_shape[-1])
    new, matches = taken_over(state, source, rules)
    if not matches.restored:
        raise InputError(
            f"no weight of {config.init_from} fits {config.body}: it has {some(source)}; the body "
            f"wants {some(target)}"
        )
    # A classifier's head, and layers behind the map, are not wanted.
    launch.say(
        f"{config.init_from}: restored {len(matches.restored)} of {len(target)} leaves; "
        f"{len(matches.missing)} are not there, {len(matches.mismatched)} have other shapes, "
        f"{len(matches.unused)} are not used"
    )
    return new
