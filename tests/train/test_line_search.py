"""The step of optimizers that search along their direction."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.train.line_search import line_search_step
from dlcore.types import Aux, Mean, TrainState

TX = optax.lbfgs(memory_size=3)


def rosenbrock(params):
    x, y = params["x"][0], params["x"][1]
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def loss(params, model_state, batch, rng):
    value = rosenbrock(params) + batch["shift"][0] * params["x"].sum()
    return Mean.of(value[None]), Aux(model_state, {})


@pytest.fixture(scope="module")
def step():
    return jax.jit(line_search_step(loss, TX))


def state_of(x=(-1.2, 1.0)):
    return TrainState.create({"params": {"x": jnp.array(x)}}, TX, jax.random.key(0))


def batch_of(shift=0.0, anew=0.0):
    return {"shift": np.full(1, shift, np.float32), "anew": np.full(1, anew, np.float32)}


def test_steps_are_those_of_optax(step):
    params = {"x": jnp.array([-1.2, 1.0])}
    opt_state, value_and_grad = TX.init(params), optax.value_and_grad_from_state(rosenbrock)

    @jax.jit
    def theirs(params, opt_state):
        value, grad = value_and_grad(params, state=opt_state)
        updates, opt_state = TX.update(
            grad, opt_state, params, value=value, grad=grad, value_fn=rosenbrock
        )
        return optax.apply_updates(params, updates), opt_state, value

    state = state_of()
    for number in range(40):
        state, metrics = step(state, batch_of())
        params, opt_state, value = theirs(params, opt_state)
        np.testing.assert_allclose(metrics["loss"].compute(), value, rtol=1e-3, atol=1e-6)
        assert metrics["evaluations"].compute() >= 1 and int(state.step) == number + 1
    assert rosenbrock(state.params) < 1e-3


def test_another_loss_begins_anew(step):
    state = state_of()
    for _ in range(3):
        state, _ = step(state, batch_of())
    fresh = state_of(state.params["x"].tolist())
    expected, _ = step(fresh, batch_of(shift=5.0))
    found, metrics = step(state, batch_of(shift=5.0, anew=1.0))
    np.testing.assert_array_equal(found.params["x"], expected.params["x"])
    value = rosenbrock(state.params) + 5 * state.params["x"].sum()
    np.testing.assert_allclose(metrics["loss"].compute(), value, rtol=1e-6)
    # Without it the value of the former loss is taken.
    _, stale = step(state, batch_of(shift=5.0))
    np.testing.assert_allclose(stale["loss"].compute(), rosenbrock(state.params), rtol=1e-5)
