"""Greedy training of an autoencoder's layers, one after the other, before all together.

Each layer of the encoder and the layer of the decoder that mirrors it learn to give the layer's own
clean input again from a corrupted one, while the layers below stay as they are (Bengio et al. 2007;
stacked denoising autoencoders: Vincent et al. 2010, section 3.5).
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax

from dlcore.errors import InputError
from dlcore.launch.task import make_optimizer
from dlcore.models.autoencoder import ENCODER, Autoencoder
from dlcore.train.phases import Phase
from dlcore.types import Aux, Batch, LossFn, Mean, Params, PyTree, at_least_float32

_ONE_OPTIMIZER = ("ema", "penalty", "plateau_patience")


def phases(
    net: Autoencoder,
    scaled: Callable[[Params, Batch], jax.Array],
    noisy: Callable[[jax.Array, jax.Array], jax.Array],
    whole: LossFn,
    config: Any,
) -> list[Phase]:
    """Returns a phase for each layer of the encoder, and one for all.

    Args:
        net: with a dense encoder.
        scaled: gives the images of a batch as the net takes them.
        noisy: corrupts (key, values).
        whole: the loss of the last phase.
        config: has `layer_steps` of each layer.

    Raises:
        InputError: for options that need one optimizer, and when no step is left for the last.
    """
    for name in _ONE_OPTIMIZER:
        if getattr(config, name) is not None:
            raise InputError(
                f"--{name} needs one optimizer, and --layer_steps has one for each layer; leave "
                "it out"
            )
    layers = len(net.encoder.hidden) + 1
    rest = config.steps - layers * config.layer_steps
    if rest < 1:
        raise InputError(
            f"--layer_steps={config.layer_steps} of each of {layers} layers leave none of "
            f"--steps={config.steps} to train them together; give more --steps"
        )
    found = [
        Phase(
            config.layer_steps,
            _layer_loss(net, number, scaled, noisy),
            _optimizer(config, config.layer_steps, _trained(number, layers)),
        )
        for number in range(layers)
    ]
    return [*found, Phase(rest, whole, _optimizer(config, rest, ""))]


def _optimizer(config: Any, steps: int, trained: str) -> Any:
    frozen = () if not trained else ((trained, False), ("", True))
    return make_optimizer(dataclasses.replace(config, steps=steps), frozen)


def _trained(number: int, layers: int) -> str:
    """Returns the expression of the parameters of a layer and of the one that mirrors it."""
    own = "output" if number == layers - 1 else f"dense_{number}"
    mirror = layers - 1 - number
    return f"^{re.escape(ENCODER)}/{own}/|^decoder/(dense|bias)_{mirror}(/|$)"


def _layer_loss(
    net: Autoencoder,
    number: int,
    scaled: Callable[[Params, Batch], jax.Array],
    noisy: Callable[[jax.Array, jax.Array], jax.Array],
) -> LossFn:
    def loss(params: Params, model_state: PyTree, batch: Batch, rng: jax.Array) -> tuple[Mean, Aux]:
        variables = {"params": params}
        x = net.apply(variables, number, scaled(params, batch), method="layer_input")
        x = jax.lax.stop_gradient(x)
        redrawn = net.apply(variables, number, noisy(rng, x), method="redraw_layer")
        kind = at_least_float32(x.dtype)
        errors = ((redrawn.astype(kind) - x.astype(kind)) ** 2).mean(1)
        return Mean.of(errors, batch["weight"]), Aux(model_state, {})

    return loss
