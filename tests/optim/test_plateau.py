"""The learning rate at a plateau follows Optax's rule, by held-out losses, and exactly resumes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore import runtime
from dlcore.errors import InputError
from dlcore.optim import optimizer, rate_scale, reduce_on_plateau, reported
from dlcore.train import Evaluation, Hook, ReduceOnPlateau, fit, gradient_step
from dlcore.types import Aux, Mean, TrainState


def zeros():
    return {"head": jnp.zeros(2), "body": jnp.zeros(3)}


@pytest.mark.parametrize("patience", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_it_is_optaxs_rule(patience):
    losses = np.random.default_rng(0).normal(size=60).cumsum().round(1)
    losses[[7, 8, 20]] = np.nan
    # Optax wants a tolerance; the smallest one makes any lower loss count, as ours.
    theirs = optax.contrib.reduce_on_plateau(0.5, patience, rtol=0.0, atol=1e-30)
    expected, state = theirs.init(zeros()), optimizer("adam", 0.1, reducible=True).init(zeros())
    update, reductions = jax.jit(lambda state, loss: theirs.update({}, state, value=loss)[1]), 0
    for loss in losses:
        with jax.numpy_dtype_promotion("standard"):
            expected = update(expected, jnp.float32(loss))
        state, reduced = reduce_on_plateau(state, loss, patience=patience, factor=0.5)
        reductions += reduced
        assert rate_scale(state) == expected.scale == 0.5**reductions
    assert 0 < reductions < len(losses)


def test_the_factor_scales_updates_and_the_reported_rate_also_beside_frozen_parameters():
    def run(scaled):
        tx = optimizer(
            "sgd",
            lambda t: 0.1 * (t + 1).astype(float),
            weight_decay=0.5,
            reducible=True,
            frozen=[("body", True)],
        )
        params, state = {"head": jnp.ones((1, 2)), "body": jnp.ones(3)}, None
        state = tx.init(params)
        for loss in (1.0, 2.0) if scaled else ():
            state, _ = reduce_on_plateau(state, loss, patience=1, factor=0.25)
        return tx.update(jax.tree.map(jnp.ones_like, params), state, params)

    (plain, _), (quarter, state) = run(False), run(True)
    np.testing.assert_allclose(plain["head"], -0.15 * np.ones((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(quarter["head"], 0.25 * plain["head"], rtol=1e-6)
    assert float(reported(state)["learning_rate"].compute()) == pytest.approx(0.025)
    assert rate_scale(optimizer("sgd", 0.1).init(zeros())) == 1


class Rates(Hook):
    def __init__(self):
        self.found = []

    def read(self, loop, number, values):
        self.found.append(float(values[loop.names.index("learning_rate"), 0]))


def train(state, steps, losses, said, layout=None):
    """Trains with an evaluation each second step, whose losses are given by step."""
    tx = optimizer("sgd", 1.0, reducible=True)

    def loss_fn(params, model_state, batch, rng):
        return Mean.of(batch["x"] * params["head"].sum()), Aux(model_state, {})

    if state is None:
        state = TrainState.create({"params": zeros()}, tx, jax.random.key(0))
    rates = Rates()
    hooks = [
        rates,
        Evaluation(lambda state: {"loss": losses[int(state.step)]}, every=2, split="validation"),
        ReduceOnPlateau(1, factor=0.5, every=2, split="validation", say=said.append),
    ]

    def batches(start):
        while True:
            yield {"x": np.ones(4, np.float32)}

    result = fit(
        gradient_step(loss_fn, tx), state, batches, steps=steps, layout=layout, hooks=hooks
    )
    return result.state, rates.found


LOSSES = {2: 1.0, 4: 1.0, 6: 0.5, 8: 0.7, 9: 0.9, 10: 0.6}


@pytest.mark.parametrize("layout", ["jit", "mesh"])
def test_the_loop_follows_the_evaluations_of_the_schedule_alone_and_continues(layout):
    """The evaluation after a last step that a longer run would not evaluate counts nothing."""
    layout = runtime.layout(layout)
    said = []
    state, rates = train(None, 12, LOSSES | {12: 0.1}, said, layout)
    assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert len(said) == 3 and said[1] == (
        "step 8: no lower validation loss in 1 evaluations; the learning rate is multiplied by "
        "0.5, which makes it 0.25 of that of the schedule"
    )
    cut, first = train(None, 9, LOSSES, [], layout)
    again, rest = train(cut, 12, LOSSES | {12: 0.1}, [], layout)
    assert first + rest == rates
    jax.tree.map(np.testing.assert_array_equal, again.opt_state, state.opt_state)


def test_evaluations_without_a_loss_are_refused():
    hook = ReduceOnPlateau(1, factor=0.5, every=2, split="test", say=print)
    with pytest.raises(InputError, match="reports \\['accuracy'\\]; leave out --plateau_patience"):
        hook.report(type("Loop", (), {"number": 2}), "test", {"accuracy": 1.0})
