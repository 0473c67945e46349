"""A training step of dlcore's language models, as `fit` compiles it, for the benchmarks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from contenders import Step

from dlcore import runtime
from dlcore.models.text import LanguageModel
from dlcore.train import gradient_step
from dlcore.train.health import guard
from dlcore.types import Aux, Mean, TrainState


def training_step(
    model: LanguageModel,
    tx: optax.GradientTransformation,
    inputs: np.ndarray,
    targets: np.ndarray,
) -> Step:
    """Steps on one batch of windows int [B, T], each from what the one before carried on."""

    def loss_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> tuple[Mean, Aux]:
        carry, readout = model.apply(
            {"params": params}, batch["inputs"], batch["reset"],
            carry=batch.get("carry"), train=True, method="window",
        )  # fmt: skip
        losses = model.output.losses(rng, readout, batch["targets"].reshape(-1))
        return Mean.of(losses), Aux(model_state, {}, carry)

    rows = len(inputs)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    state = TrainState.create(variables, tx, jax.random.key(1), model.initial_carry(rows))
    step = runtime.compile_step(guard(gradient_step(loss_fn, tx)), runtime.layout("jit"))
    batch = {"inputs": inputs, "targets": targets, "reset": np.zeros(rows, bool)}

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        metrics["loss"].total.block_until_ready()

    return run
