"""The range test finds the rate of the steepest descent, in spite of noise, and ends in time."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.optim import optimizer
from dlcore.train import fit, gradient_step
from dlcore.train.rate_range import HIGHEST, LOWEST, RangeTest, analyse, rising
from dlcore.types import Aux, Mean, TrainState

RATES = np.logspace(math.log10(LOWEST), math.log10(HIGHEST), 200)


def curve(steepest, lowest):
    """A loss that falls fastest and is lowest at these rates, and grows beyond."""
    places = np.log10(RATES)
    fall = 1 / (1 + np.exp(6 * (places - math.log10(steepest))))
    return 2 * fall + 20 * np.maximum(places - math.log10(lowest), 0) ** 2


def test_rates_grow_exponentially():
    found = [float(rising(200)(step)) for step in range(200)]
    np.testing.assert_allclose(found, RATES, rtol=1e-4)


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("steepest", [1e-4, 3e-3, 0.1])
def test_the_steepest_descent_is_found_without_a_lag(noise, steepest):
    random = np.random.default_rng(0)
    losses = curve(steepest, 30 * steepest) + noise * random.normal(size=len(RATES))
    found = analyse(RATES, losses)
    # Within a fifth of a decade: an average of the losses so far would be a third behind.
    assert found.steepest == pytest.approx(steepest, rel=0.6 if noise else 0.1)
    assert found.lowest > 3 * steepest


def test_noise_and_losses_that_only_grow_give_no_rate():
    noise = np.random.default_rng(0).normal(size=len(RATES))
    assert analyse(RATES, 2 + 0.1 * noise).steepest is None
    assert analyse(RATES, 2 + RATES).steepest is None


def train(loss_of, steps=200):
    """Trains w of the loss from 1 by rising rates."""

    def loss_fn(params, model_state, batch, rng):
        return Mean.of(loss_of(params["w"]) * batch["x"]), Aux(model_state, {})

    def batches(start):
        while True:
            yield {"x": np.ones(2, np.float32)}

    tx = optimizer("sgd", rising(steps))
    state = TrainState.create({"params": {"w": jnp.ones(())}}, tx, jax.random.key(0))
    test = RangeTest()
    result = fit(gradient_step(loss_fn, tx), state, batches, steps=steps, hooks=[test])
    return test, result


def test_a_quadratic_diverges_where_theory_says():
    """Gradient descent on 1/2 c w^2 + 1 diverges at rates from 2 / c on."""
    test, result = train(lambda w: 0.5 * 10 * w**2 + 1)
    assert test.diverged and result.reason == "diverged"
    found = analyse(RATES[: len(test.losses)], np.array(test.losses))
    assert 0.2 < found.rates[-1] < 2 and found.steepest < 0.2
    by_hand, losses = 1.0, []
    for rate in found.rates:
        losses.append(5 * by_hand**2 + 1)
        by_hand -= rate * 10 * by_hand
    np.testing.assert_allclose(test.losses[:-5], losses[:-5], rtol=1e-3)


def test_a_loss_that_is_not_finite_ends_it_at_once():
    test, _ = train(lambda w: jnp.log(w), steps=40)
    assert test.diverged and np.isfinite(test.losses).all() and len(test.losses) < 40


def test_a_loss_that_only_falls_goes_through_all_rates():
    test, result = train(lambda w: jnp.exp(-w), steps=20)
    assert not test.diverged and len(test.losses) == 20 and result.reason == "finished"


def test_a_step_without_a_loss_is_refused():
    loop = type("Loop", (), {"names": ["cost", "skipped"]})
    with pytest.raises(InputError, match=r"reports \['cost', 'skipped'\]; leave out --find_rate"):
        RangeTest().read(loop, 1, np.ones((2, 2)))
