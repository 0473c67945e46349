"""The checks of models of tokens: language models that carry a state, and padded texts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.check.model import check_model
from dlcore.nn.recurrent.lstm import LSTM
from dlcore.nn.recurrent.scan import scan
from dlcore.train import gradient_step
from dlcore.types import Aux, Mean, TrainState

ROWS, STEPS, WORDS, WIDTH = 4, 6, 13, 16
CELL = LSTM(WIDTH)


def start(rows):
    """A carry of the default type, which is float64 while gradients are checked."""
    return {"h": jnp.zeros((rows, WIDTH)), "c": jnp.zeros((rows, WIDTH))}


@jax.custom_vjp
def sign_bug(x):
    return x


sign_bug.defvjp(lambda x: (x, None), lambda _, g: (-g,))


def read(params, tokens, carry, fault=""):
    """(carry, logits [B, T, V], activations) of an LSTM over embedded tokens."""
    embedded = params["embedding"][tokens]
    if fault == "frozen":
        embedded = jax.lax.stop_gradient(embedded)
    lstm = {name: params[name] for name in ("input_kernel", "recurrent_kernel", "bias")}
    prepared = CELL.prepare(lstm, {}, embedded.swapaxes(0, 1), None, False)
    carry, hidden = scan(CELL, lstm, carry, prepared)
    hidden = hidden.swapaxes(0, 1)
    if fault == "sign":
        hidden = sign_bug(hidden)
    if fault == "dead":
        hidden = jax.nn.relu(hidden - 1)
    logits = hidden @ params["output"] * (200 if fault == "scale" else 1)
    return carry, logits, {"hidden": hidden}


def run(fault=""):
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "embedding": jax.random.normal(keys[0], (WORDS, WIDTH)),
        **CELL.init(keys[1], WIDTH),
        "output": jax.random.normal(keys[2], (WIDTH, WORDS)) / WIDTH,
    }
    tokens = np.random.default_rng(0).integers(0, WORDS, (ROWS, STEPS + 1)).astype(np.int32)
    weight = np.ones((ROWS, STEPS), np.float32)
    weight[-1] = 0
    batch = {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "weight": weight}

    def loss_fn(params, model_state, batch, rng):
        fresh = jax.tree.map(jnp.zeros_like, batch["carry"])
        carry, logits, _ = read(params, batch["inputs"], fresh, fault)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"])
        return Mean.of(losses, batch["weight"]), Aux(model_state, {}, carry)

    def forward(variables, tokens):
        _, logits, activations = read(variables["params"], tokens, start(len(tokens)), fault)
        return logits, activations

    tx = optax.adam(0.03)
    state = TrainState.create({"params": params}, tx, jax.random.key(1), start(ROWS))
    printed: list[str] = []
    findings = check_model(
        forward,
        loss_fn,
        state,
        batch,
        step=gradient_step(loss_fn, tx),
        inputs="inputs",
        chance=math.log(WORDS),
        emit=printed.append,
    )
    return {finding.name: finding for finding in findings}, printed


def test_a_healthy_language_model_passes():
    findings, printed = run()
    assert list(findings) == [
        "parameters",
        "compiled step",
        "initial loss",
        "gradients",
        "overfit one batch",
        "dead units",
    ]
    assert all(finding.passed for finding in findings.values()), "\n".join(printed)
    # Both products of the LSTM (16 to 64) and that of the output, six steps of one example.
    assert f"{6 * (2 * 16 * 64 + 16 * 13):,}" in printed[0].splitlines()[-1]
    assert findings["initial loss"].expected == "log 13 = 2.565 within a factor of 2"
    assert findings["gradients"].value.startswith("8 directions")


@pytest.mark.parametrize(
    "fault, failing, cause",
    [
        pytest.param("sign", "gradients", "custom derivative", marks=pytest.mark.slow),
        ("frozen", "overfit one batch", "embedding"),
        pytest.param("scale", "initial loss", "an initial scale", marks=pytest.mark.slow),
        pytest.param("dead", "dead units", "biases far below zero", marks=pytest.mark.slow),
    ],
)
def test_each_fault_fails_its_check(fault, failing, cause):
    findings, _ = run(fault)
    assert not findings[failing].passed and cause in findings[failing].cause
