"""Correlations and confidence intervals, against scipy's and by hand."""

import math

import numpy as np
import pytest

from dlcore.evaluation.statistics import fisher_interval, spearman
from dlcore.metrics.intervals import wilson_interval


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize("values", [3, 20, 10_000])
def test_spearman_with_ties_against_scipy(values, random) -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = random.integers(0, values, (2, 200))
    second += first // 2
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)


def test_spearman_by_hand() -> None:
    assert spearman(np.arange(5), np.arange(5) ** 3) == 1
    assert spearman(np.arange(5), -np.arange(5)) == -1
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    assert spearman(np.array([1, 2, 2, 9]), np.arange(4)) == pytest.approx(math.sqrt(0.9))
    for first, second in (([1, 1, 1], [1, 2, 3]), ([1], [2]), ([], [])):
        assert math.isnan(spearman(np.array(first), np.array(second)))


@pytest.mark.parametrize("right, total", [(0, 1), (0, 20), (7, 20), (20, 20), (3000, 19_544)])
def test_wilson_interval_against_scipy(right, total) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_intervals_of_nothing_and_of_the_extremes() -> None:
    assert wilson_interval(0, 0) == (0, 1)
    assert wilson_interval(0, 9)[0] == 0 and wilson_interval(9, 9)[1] == 1
    assert fisher_interval(0.5, 3) == fisher_interval(math.nan, 30) == (-1, 1)
    assert fisher_interval(1.0, 30) == (1, 1) and fisher_interval(-1.0, 30) == (-1, -1)


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_the_interval_of_a_correlation_holds_the_truth_as_often_as_it_says(
    correlation, random
) -> None:
    samples = random.normal(size=(2000, 2, 60))
    samples[:, 1] = correlation * samples[:, 0] + math.sqrt(1 - correlation**2) * samples[:, 1]
    truth = 6 / math.pi * math.asin(correlation / 2)  # Spearman's of the normal distribution
    intervals = np.array([fisher_interval(spearman(*sample), 60) for sample in samples])
    hits = ((intervals[:, 0] < truth) & (truth < intervals[:, 1])).mean()
    assert abs(hits - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)
