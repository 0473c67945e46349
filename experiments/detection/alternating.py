"""Faster R-CNN's training in four steps, in which both networks come to share their convolutions.

Ren et al. 2015, section 3.2: (1) the proposal network learns, with a body of its own; (2) the
detector learns from its proposals, with another body that starts from the same weights; (3) the
body of the detector is kept as it is, and the proposal network goes on with what is its own on it;
(4) the detector goes on with what is its own from these proposals. Each has a quarter of the steps,
an optimizer and a schedule of its own. A body that is kept is evaluated as it is, without noise and
without new statistics.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from dlcore.errors import InputError
from dlcore.launch.task import make_optimizer
from dlcore.models.detection.body import BODY
from dlcore.models.detection.faster_rcnn import NECK, FasterRCNN
from dlcore.train.phases import Phase
from dlcore.types import Aux, Batch, LossFn, Mean, Params, PyTree, Variables

# The modules that both networks share at the end, and where those of the proposal network lie until
# then.
SHARED = (BODY, NECK)
APART = "proposal_shared"
# What each of the four steps trains, as a regular expression of parameters.
_TRAINED = (f"^(proposals|{APART})/", f"^({BODY}|{NECK}|regions)/", "^proposals/", "^regions/")

# (terms of the loss of each picture, weights) -> the loss, and its terms as means
Means = Callable[[Any, jax.Array], tuple[Mean, dict[str, Mean]]]
# (variables, images of 0..255) -> images as the network takes them
Scaled = Callable[[Variables, jax.Array], jax.Array]


def with_own_body(variables: Variables) -> dict[str, PyTree]:
    """Returns the variables with a copy of the shared modules for the proposal network."""
    return {
        collection: {**tree, APART: jax.tree.map(lambda x: x + 0, _shared(tree))}
        for collection, tree in variables.items()
    }


def _shared(tree: PyTree) -> PyTree:
    return {name: tree[name] for name in SHARED if name in tree}


def _of_proposals(variables: Variables) -> Variables:
    """Returns the variables with which the proposal network has its own body."""
    return {name: {**tree, **tree[APART]} for name, tree in variables.items()}


def four_steps(model: FasterRCNN, scaled: Scaled, means: Means, config: Any) -> list[Phase]:
    """Returns the four phases of the training of a configuration.

    Raises:
        InputError: for fewer than four steps, and for options that need one optimizer.
    """
    for name in ("ema", "penalty", "plateau_patience"):
        if getattr(config, name) is not None:
            raise InputError(
                f"--{name} needs one optimizer, and --training=alternating has four; leave it out"
            )
    if config.steps < len(_TRAINED):
        raise InputError(
            f"--steps={config.steps} are fewer than the {len(_TRAINED)} of --training=alternating"
        )
    each = config.steps // len(_TRAINED)
    lengths = [each] * (len(_TRAINED) - 1)
    lengths.append(config.steps - sum(lengths))
    return [
        Phase(
            length,
            _loss(model, scaled, means, number),
            make_optimizer(
                dataclasses.replace(config, steps=length), ((trained, False), ("", True))
            ),
        )
        for number, (length, trained) in enumerate(zip(lengths, _TRAINED, strict=True))
    ]


def _loss(model: FasterRCNN, scaled: Scaled, means: Means, number: int) -> LossFn:
    detects, shares = number % 2 == 1, number >= 2

    def loss(params: Params, model_state: PyTree, batch: Batch, rng: jax.Array) -> tuple[Mean, Aux]:
        dropout, key = jax.random.split(rng)
        variables = {"params": params, **model_state}
        images = scaled(variables, batch["image"])
        proposing = variables if shares else _of_proposals(variables)
        inputs: tuple[Any, ...] = (images, batch)
        if detects:
            inputs += (model.apply(proposing, images, method="proposed"),)
        parts, new = model.apply(
            variables if detects else proposing,
            *inputs,
            key,
            train=not shares,
            rngs={"dropout": dropout},
            mutable=[*model_state],
            method="region_losses" if detects else "proposal_losses",
        )
        state = dict(model_state)
        if not shares:
            for name, tree in new.items():
                state[name] = {
                    **state[name],
                    **(_shared(tree) if detects else {APART: _shared(tree)}),
                }
        value, metrics = means(parts, batch["weight"])
        return value, Aux(state, metrics)

    return loss
