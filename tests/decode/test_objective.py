"""The objective at hand-worked numbers, and its bound over all continuations."""

import itertools

import numpy as np
import pytest

from dlcore.decode import NORMALISATIONS, Objective
from dlcore.errors import InputError

LOG_PROB = np.array([-2.0, -12.0], np.float32)
LENGTH = np.array([4, 16], np.int32)
# The first source got attention 0.5 and 0.25 (3 log 2 below 0), the second more than 1 everywhere.
COVERAGE = np.array([[0.5, 0.25, 1.0], [1.5, 1.0, 2.5]], np.float32)


@pytest.mark.parametrize(
    "objective, expected",
    [
        (Objective(), [-2, -12]),
        (Objective("average"), [-1 / 2, -3 / 4]),
        (Objective("power", alpha=0.5), [-1, -3]),
        (Objective("power", alpha=0), [-2, -12]),
        # (5 + 4) / 6 = 1.5 and (5 + 16) / 6 = 3.5.
        (Objective("gnmt", alpha=1), [-4 / 3, -24 / 7]),
        (Objective("gnmt", alpha=2), [-8 / 9, -48 / 49]),
        (Objective(coverage=0.5), [-2 - 1.5 * np.log(2), -12]),
        (Objective("average", coverage=2), [-0.5 - 6 * np.log(2), -0.75]),
    ],
    ids=str,
)
def test_scores_worked_out_by_hand(objective, expected):
    np.testing.assert_allclose(objective.score(LOG_PROB, LENGTH, COVERAGE), expected, rtol=1e-6)
    one = objective.score(LOG_PROB[0], 4, COVERAGE[0])
    np.testing.assert_allclose(one, expected[0], rtol=1e-6)


def test_a_source_place_without_attention_costs_much_but_not_everything():
    nothing, little = np.zeros((1, 3), np.float32), np.full((1, 3), 1e-6, np.float32)
    scores = [Objective(coverage=1).score(LOG_PROB[:1], 4, x)[0] for x in (nothing, little)]
    assert np.isfinite(scores[0]) and scores[0] < scores[1] < -40


@pytest.mark.parametrize(
    "alpha",
    [0, pytest.param(0.3, marks=pytest.mark.slow), 1, pytest.param(2.5, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_nothing_that_can_come_beats_the_bound(normalise, alpha):
    objective, longest = Objective(normalise, alpha, coverage=0.3), 9
    rng = np.random.default_rng(0)
    for length, log_prob in itertools.product(range(longest), [0.0, -0.4, -7.0, -90.0]):
        bound = objective.bound(np.float32(log_prob), longest)
        lengths = np.arange(length + 1, longest + 1)
        falls = rng.exponential(rng.choice([1e-3, 1], size=len(lengths))).astype(np.float32)
        covered = rng.uniform(0.3, 2, size=(len(lengths), 3)).astype(np.float32)
        scores = objective.score(np.float32(log_prob) - falls, lengths, covered)
        assert (scores <= bound).all()
    # The longest continuation of probability 1 reaches the bound.
    best = objective.score(np.float32(log_prob), longest, np.ones(3, np.float32))
    np.testing.assert_array_equal(best, bound)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"normalise": "wu"}, "unknown length normalisation 'wu'; choose one of: average, gnmt"),
        ({"alpha": -0.1}, "alpha -0.1 of a search objective is not 0 or more"),
        ({"alpha": float("nan")}, "alpha nan of a search objective"),
        ({"coverage": -1}, "coverage -1 of a search objective is not 0 or more"),
        ({"coverage": float("inf")}, "coverage inf of a search objective"),
    ],
    ids=str,
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        Objective(**settings)


def test_a_penalty_needs_the_attention():
    with pytest.raises(InputError, match="coverage penalty of 0.2 needs the attention"):
        Objective(coverage=0.2).score(LOG_PROB, LENGTH)
