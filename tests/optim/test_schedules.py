"""Schedules equal hand-worked tables."""

import jax
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.optim import SCHEDULES, schedule

ROOT = np.sqrt(0.5)
# Steps 0, 2, 4, ... of a run of 12 with 4 of warm-up, at peak 1.
TABLE = {
    "constant": [0, 0.5, 1, 1, 1, 1, 1],
    "cosine": [0, 0.5, 1, (1 + ROOT) / 2, 0.5, (1 - ROOT) / 2, 0],
    "linear": [0, 0.5, 1, 0.75, 0.5, 0.25, 0],
    "step": [0, 0.5, 1, 0.2, 0.2, 0.04, 0.04],
    "inverse_sqrt": [0, 0.5, 1, np.sqrt(4 / 6), ROOT, np.sqrt(4 / 10), np.sqrt(4 / 12)],
    "wsd": [0, 0.5, 1, 1, 1, 2 / 3, 0],
}


def settings(name):
    of = {"step": {"boundaries": [6, 9], "factor": 0.2}, "wsd": {"decay_share": 0.25}}
    return of.get(name, {})


@pytest.mark.parametrize("name", SCHEDULES)
def test_table(name):
    rate = schedule(name, 3.0, steps=12, warmup_steps=4, **settings(name))
    steps = np.arange(0, 14, 2)
    np.testing.assert_allclose([rate(t) for t in steps], np.multiply(3.0, TABLE[name]), atol=1e-6)
    jitted = [jax.jit(rate)(t) for t in steps]
    np.testing.assert_allclose(jitted, np.multiply(3.0, TABLE[name]), atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_warmup_the_first_step_is_the_peak(name):
    rate = schedule(name, 0.1, steps=10, **settings(name))
    assert float(rate(0)) == pytest.approx(0.1)
    later = {"constant": 0.1, "wsd": 0.1, "step": 0.02, "inverse_sqrt": 0.1 / np.sqrt(8)}
    expected = later.get(
        name, {"cosine": 0.05 * (1 + np.cos(0.7 * np.pi)), "linear": 0.03}.get(name)
    )
    assert float(rate(7)) == pytest.approx(expected)


def test_step_changes_on_the_boundary():
    rate = schedule("step", 1.0, steps=10, warmup_steps=2, boundaries=[5], factor=0.5)
    assert [float(rate(t)) for t in (4, 5, 6)] == [1.0, 0.5, 0.5]


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "inverse_sqrt"])
def test_a_run_may_be_all_warmup(name):
    rate = schedule(name, 1.0, steps=4, warmup_steps=4)
    np.testing.assert_allclose([rate(t) for t in range(4)], [0, 0.25, 0.5, 0.75])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cosin"}, "unknown schedule 'cosin'; choose one of: constant, cosine"),
        ({"warmup_steps": 11}, "warmup_steps 11 is not between 0 and the run's 10 steps"),
        ({"warmup_steps": -1}, "warmup_steps -1 is not between"),
        ({"steps": 0}, "a schedule over 0 steps is empty"),
        ({"peak": -0.1}, "learning rate -0.1 is not a number >= 0"),
        ({"peak": float("nan")}, "learning rate nan is not"),
        ({"boundaries": [3]}, "'step' needs some, the others take none"),
        ({"name": "step"}, "'step' needs some"),
        ({"name": "step", "boundaries": [5, 3]}, "boundaries [5, 3] do not increase"),
        ({"name": "step", "boundaries": [10]}, "the run's end 10"),
        ({"name": "step", "boundaries": [2], "warmup_steps": 2}, "the warm-up's end 2"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message):
    given = {"name": "cosine", "peak": 0.1, "steps": 10, **arguments}
    with pytest.raises(InputError) as error:
        schedule(given.pop("name"), given.pop("peak"), **given)
    assert message in str(error.value) and "\n" not in str(error.value)
