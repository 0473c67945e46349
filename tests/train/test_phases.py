"""Training in phases against one loop after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.optim import optimizer
from dlcore.train import guard
from dlcore.train.gradient import gradient_step
from dlcore.train.phases import Phase, phased_optimizer, phased_step
from dlcore.types import Aux, Mean, TrainState


def loss_of(name):
    def loss(params, model_state, batch, rng):
        values = (batch["x"] - params[name]["w"]) ** 2
        count = {"count": model_state["count"] + 1}
        return Mean.of(values), Aux(count, {f"{name}_loss": Mean.of(values)})

    return loss


def test_phases_are_trainings_one_after_the_other():
    """Each has a new optimizer, and what it freezes keeps its bits."""
    frozen = {"a": [("^b/", True)], "b": [("^a/", True)]}
    rates = {"a": optax.linear_schedule(0.5, 0.1, 3), "b": optax.constant_schedule(0.2)}
    phases = [
        Phase(steps, loss_of(name), optimizer("adam", rates[name], frozen=frozen[name]))
        for name, steps in (("a", 3), ("b", 2), ("a", 9))
    ]
    params = {"a": {"w": jnp.array(1.0)}, "b": {"w": jnp.array(-2.0)}}
    variables = {"params": params, "count": jnp.array(0)}
    tx = phased_optimizer(phases)
    state = TrainState.create(variables, tx, jax.random.key(0))
    step = jax.jit(phased_step(phases))
    batches = [{"x": jnp.full((2,), float(n))} for n in range(8)]
    seen = []
    for batch in batches:
        state, metrics = step(state, batch)
        seen.append({name: float(mean.weight) for name, mean in metrics.items()})

    expected = variables
    for phase, part in zip(phases, (batches[:3], batches[3:5], batches[5:]), strict=True):
        alone = TrainState.create(expected, phase.optimizer, jax.random.key(0))
        plain = jax.jit(gradient_step(phase.loss, phase.optimizer))
        for batch in part:
            alone, _ = plain(alone, batch)
        expected = {"params": alone.params, **alone.model_state}
    assert int(state.step) == 8 and int(state.model_state["count"]) == 8
    for name in ("a", "b"):
        np.testing.assert_array_equal(state.params[name]["w"], expected["params"][name]["w"])
    # A metric counts in its own phase alone.
    assert [one["a_loss"] for one in seen] == [2, 2, 2, 0, 0, 2, 2, 2]
    assert [one["b_loss"] for one in seen] == [0, 0, 0, 2, 2, 0, 0, 0]


def test_a_phase_starts_from_what_it_makes_of_the_parameters():
    """Once, before its first step that is not bad."""
    phases = [
        Phase(2, loss_of("a"), optimizer("sgd", 0.1)),
        Phase(9, loss_of("b"), optimizer("sgd", 0.1), lambda params: {**params, "b": params["a"]}),
    ]
    params = {"a": {"w": jnp.array(1.0)}, "b": {"w": jnp.array(-2.0)}}
    tx = phased_optimizer(phases)
    state = TrainState.create({"params": params, "count": jnp.array(0)}, tx, jax.random.key(0))
    step = jax.jit(guard(phased_step(phases)))
    values = [3.0, 3.0, np.nan, 5.0, 5.0]
    for value in values:
        state, _ = step(state, {"x": jnp.full((2,), value)})
        if np.isnan(value):
            assert float(state.params["b"]["w"]) == -2
    a = 3 - 2 * 0.8**2
    assert float(state.params["a"]["w"]) == pytest.approx(a)
    assert float(state.params["b"]["w"]) == pytest.approx(5 - (5 - a) * 0.8**2)
