"""Overfitting one batch: passes on a healthy step, names the cause on a planted fault."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.check.overfit import dead_units, initial_loss_is_chance, overfit_one_batch
from dlcore.types import Mean


class State(NamedTuple):
    params: Any
    opt_state: Any


def batch(labels=(0, 1, 2, 0, 1, 2, 0, 1)):
    image = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    return {"image": image, "label": np.asarray(labels, np.int32)}


def logits(params, image):
    hidden = jax.nn.relu(image @ params["first"])
    return hidden @ params["second"]


def make(learning_rate=0.05, predict=logits, scale=0.3):
    tx = optax.adam(learning_rate)
    first, second = jax.random.normal(jax.random.key(0), (2, 48)) * scale
    params = {"first": first.reshape(6, 8), "second": second[:24].reshape(8, 3)}

    def step(state, batch):
        def loss(params):
            output = predict(params, jnp.asarray(batch["image"]))
            return optax.softmax_cross_entropy_with_integer_labels(output, batch["label"]).mean()

        value, grads = jax.value_and_grad(loss)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state), {"loss": Mean.of(value)}

    return step, State(params, tx.init(params))


def test_a_healthy_step_learns_the_batch_and_stops_early():
    verdict = overfit_one_batch(*make(), batch(), steps=500, target=0.05)
    assert verdict.passed and not verdict.causes and not verdict.frozen
    assert verdict.last_loss < 0.05 < verdict.first_loss and 1 < verdict.steps < 500


def test_a_frozen_layer_is_named_although_the_batch_is_learnt():
    def frozen(params, image):
        return logits(params | {"first": jax.lax.stop_gradient(params["first"])}, image)

    verdict = overfit_one_batch(*make(predict=frozen), batch(), steps=2000, target=0.1)
    assert verdict.last_loss < 0.1 and not verdict.passed
    assert verdict.frozen == ("first",)
    assert "never changed (frozen, dead" in verdict.causes[0] and "first" in verdict.causes[0]


def test_dead_units_freeze_what_is_before_them():
    def dead(params, image):
        return jax.nn.relu(image @ params["first"] - 1e3) @ params["second"]

    verdict = overfit_one_batch(*make(predict=dead), batch(), steps=20, target=0.1)
    assert verdict.frozen == ("first", "second")


@pytest.mark.parametrize(
    "options, cause",
    [
        (dict(learning_rate=1e-6), "hardly moves: raise the learning rate"),
        (dict(learning_rate=3e-3), "not far enough: more steps"),
        (dict(learning_rate=-0.3), "lower the learning rate, or the gradient's sign is wrong"),
        (dict(learning_rate=30.0), "lower the learning rate, or the gradient's sign is wrong"),
        (dict(learning_rate=float("nan")), "stopped being finite: lower the learning rate"),
        (dict(scale=float("nan")), "not finite before any update"),
    ],
)
def test_the_cause_is_named(options, cause):
    verdict = overfit_one_batch(*make(**options), batch(), steps=60, target=0.05)
    assert not verdict.passed and cause in "; ".join(verdict.causes)


def test_a_donating_step_is_taken_as_it_is():
    step, state = make()
    verdict = overfit_one_batch(
        jax.jit(step, donate_argnums=0), state, batch(), steps=500, target=0.05
    )
    assert verdict.passed


@pytest.mark.parametrize("loss, near", [(2.3026, True), (3.5, True), (0.7, False), (9.0, False)])
def test_initial_loss(loss, near):
    assert initial_loss_is_chance(loss, math.log(10)) is near


def test_initial_loss_of_even_logits_is_log_c():
    even = optax.softmax_cross_entropy_with_integer_labels(jnp.zeros((4, 7)), jnp.zeros(4, int))
    assert even.mean() == pytest.approx(math.log(7), rel=1e-6)
    assert initial_loss_is_chance(float(even.mean()), math.log(7))


def test_dead_units_are_zero_for_the_whole_batch_everywhere():
    values = np.ones((3, 2, 2, 4), np.float32)
    values[..., 1] = 0
    values[1:, ..., 2] = 0  # alive in one example
    values[..., 3] = -1  # negative, but not zero
    shares = dead_units({"relu": jnp.asarray(values), "flat": jnp.zeros((3, 2))})
    assert shares == {"relu": 0.25, "flat": 1.0}
