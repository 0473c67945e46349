"""Baselines of forecasts and their scores."""

import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.evaluation import (
    find_period,
    fit_linear,
    persistence,
    score_forecasts,
    seasonal_naive,
)
from dlcore.evaluation.forecasts import LinearMap


def windows(values, context, horizon):
    steps = np.arange(len(values) - context - horizon + 1)[:, None] + np.arange(context + horizon)
    return {"context": values[steps][:, :context], "target": values[steps][:, context:]}


def noisy(count=300, columns=2, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, columns))
    for t in range(2, count):  # an autoregression, so that a linear map is right
        values[t] += 1.2 * values[t - 1] - 0.5 * values[t - 2]
    return values


def test_naive_forecasts():
    context = np.arange(10.0).reshape(1, 5, 2)  # 0 2 4 6 8 and 1 3 5 7 9
    np.testing.assert_array_equal(persistence(2)(context)[0, :, :, 0], [[8, 9], [8, 9]])
    found = seasonal_naive(4, 3)(context)
    assert found.shape == (1, 4, 2, 1)
    np.testing.assert_array_equal(found[0, :, 0, 0], [4, 6, 8, 4])


@pytest.mark.parametrize("period", [5, 12, 24])
def test_the_period_is_found(period):
    rng = np.random.default_rng(0)
    t = np.arange(40 * period)
    wave = np.sin(2 * np.pi * t / period)[:, None] + 0.3 * rng.normal(size=(len(t), 3))
    wave[:, 2] = 4.0  # a constant column has no say
    assert find_period(wave, 3 * period) == period


def test_no_period_in_noise_trends_and_short_series():
    rng = np.random.default_rng(0)
    assert find_period(rng.normal(size=(2000, 2)), 50) == 1
    assert find_period(np.arange(100.0)[:, None], 50) == 1
    assert find_period(np.zeros((100, 1)), 50) == find_period(np.ones((2, 1)), 50) == 1


@pytest.mark.parametrize("strength", [1e-6, 1e-2])
def test_the_linear_map_is_that_of_least_squares(monkeypatch, strength):
    monkeypatch.setattr("dlcore.evaluation.forecasts._STRENGTHS", (strength,))
    data = windows(noisy(), 4, 3)
    found = fit_linear([data], [data], shared=True)
    x = np.concatenate([data["context"][:, :, d] for d in (0, 1)])
    y = np.concatenate([data["target"][:, :, d] for d in (0, 1)])
    best = None
    for relative in (False, True):
        last = x[:, -1:] if relative else 0
        # As rows of a least-squares problem: the penalty is sqrt(strength N) on each weight.
        rows = np.sqrt(strength * len(x)) * np.eye(4, 5)
        a = np.concatenate([np.c_[x - last, np.ones(len(x))], rows])
        b = np.concatenate([y - last, np.zeros((4, 3))])
        w = np.linalg.lstsq(a, b, rcond=None)[0]
        fitted = (x - last) @ w[:-1] + w[-1] + last
        error = ((fitted - y) ** 2).mean()
        best = (error, fitted) if best is None or error < best[0] else best
    ours = found(data["context"])[..., 0]
    np.testing.assert_allclose(np.concatenate([ours[:, :, d] for d in (0, 1)]), best[1], atol=1e-6)


def test_batches_of_windows_add_up():
    data = windows(noisy(), 4, 3)
    parts = [{name: array[i : i + 50] for name, array in data.items()} for i in range(0, 294, 50)]
    one, many = fit_linear([data], [data]), fit_linear(parts, parts)
    np.testing.assert_allclose(one.kernel, many.kernel, atol=1e-9)
    assert one.form == many.form


def test_the_validation_part_chooses():
    rng = np.random.default_rng(0)
    # Two columns that follow other laws, with hardly any noise: one map for each.
    values = np.zeros((300, 2))
    values[0] = 1
    for t in range(1, 300):
        values[t] = [0.9, -0.9] * values[t - 1] + 0.1 * rng.normal(size=2)
    data = windows(values, 3, 2)
    assert fit_linear([data], [data]).form.startswith("one for each column")
    assert len(fit_linear([data], [data]).kernel) == 2
    assert len(fit_linear([data], [data], shared=True).kernel) == 1
    # A level far from all that was fitted: differences from the last value.
    far = windows(np.cumsum(rng.normal(size=(300, 1)), 0), 3, 2)
    moved = {name: array + 1000 for name, array in far.items()}
    assert "differences from the last value" in fit_linear([far], [moved]).form


def test_a_constant_column_is_fitted():
    values = np.concatenate([noisy(columns=1), np.full((300, 1), 5.0)], axis=1)
    data = windows(values, 4, 3)
    found = score_forecasts(fit_linear([data], [data]), [data])
    assert np.isfinite(found.mse).all() and found.mse[:, 1].max() < 1e-6
    with pytest.raises(InputError, match="no windows"):
        fit_linear([], [])


def test_scores_by_hand():
    forecast = LinearMap(np.zeros((1, 1, 2)), np.array([[1.0, 2.0]]), "")
    batch = {
        "context": np.zeros((3, 1, 1)),
        "target": np.array([[1, 4], [3, 2], [9, 9.0]])[..., None],
        "weight": np.array([1, 1, 0]),
    }
    found = score_forecasts(forecast, [batch])
    np.testing.assert_allclose(found.mse[:, 0], [(0 + 4) / 2, (4 + 0) / 2])
    np.testing.assert_allclose(found.mae[:, 0], [1, 1])
    with pytest.raises(ValueError, match="no windows"):
        score_forecasts(forecast, [])


def test_intervals_are_counted():
    target = np.array([0.0, 1, 2, 3]).reshape(4, 1, 1)

    def forecast(context):
        return np.broadcast_to(np.array([0.5, 1.5, 2.0]), (len(context), 1, 1, 3))

    halves = [{"context": target[i : i + 2], "target": target[i : i + 2]} for i in (0, 2)]
    found = score_forecasts(forecast, halves, point=1)
    assert found.below.tolist() == [0.25, 0.5, 0.75]
    assert (found.coverage, found.width) == (0.5, 1.5)
    assert found.mae.tolist() == [[1.0]]
