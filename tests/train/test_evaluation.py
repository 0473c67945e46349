import math

import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.train import Best, evaluate
from dlcore.types import Mean, Rows


def test_a_split_of_any_length_gives_the_mean_over_its_examples():
    values = np.random.default_rng(0).normal(size=23).astype(np.float32)

    def metric_fn(state, batch):
        x, weight = jnp.asarray(batch["x"]), jnp.asarray(batch["weight"])
        return {"value": Mean.of(x * state, weight)}, None

    def batches(size):
        for start in range(0, 23, size):
            x = values[start : start + size]
            padding = size - len(x)
            weight = np.ones(len(x), np.float32)
            yield {
                "x": np.pad(x, (0, padding), constant_values=9),
                "weight": np.pad(weight, (0, padding)),
            }

    for size in (1, 4, 23, 40):
        found = evaluate(metric_fn, 2.0, batches(size))
        assert found["value"] == pytest.approx(2 * values.mean(dtype=np.float64), rel=1e-6)


def test_means_of_classes_are_averaged_over_those_that_count():
    """Each class is divided by its own weight, once, and class 2 was never seen."""

    def metric_fn(state, batch):
        return {"macro": Mean(batch["right"], batch["all"])}, None

    batches = [
        {"right": jnp.array([1.0, 0, 0]), "all": jnp.array([1.0, 3, 0])},
        {"right": jnp.array([2.0, 1, 0]), "all": jnp.array([5.0, 1, 0])},
    ]
    assert evaluate(metric_fn, 0.0, batches) == {"macro": pytest.approx((3 / 6 + 1 / 4) / 2)}
    assert math.isnan(
        evaluate(metric_fn, 0.0, [{"right": jnp.zeros(3), "all": jnp.zeros(3)}])["macro"]
    )


def test_rows_come_in_the_order_of_the_batches_without_padding():
    """Trees of them, beside means."""

    def metric_fn(state, batch):
        x, weight = jnp.asarray(batch["x"]), jnp.asarray(batch["weight"])
        values = {"twice": 2 * x, "pairs": (jnp.stack([x, x + 1], 1),)}
        return {"mean": Mean.of(x, weight), "found": Rows(values, weight)}, None

    batches = [
        {"x": np.array([3.0, 1.0]), "weight": np.ones(2)},
        {"x": np.array([2.0, 3.0]), "weight": np.array([1.0, 0.0])},
    ]
    measured = evaluate(metric_fn, 0.0, batches)
    assert measured["mean"] == 2
    np.testing.assert_array_equal(measured["found"]["twice"], [6, 2, 4])
    np.testing.assert_array_equal(measured["found"]["pairs"][0], [[3, 4], [1, 2], [2, 3]])


def test_best_follows_a_curve_with_patience_and_a_least_change():
    best = Best("loss", mode="min", patience=2, minimum_change=0.1)
    curve = [1.0, 0.95, 0.8, 0.75, math.nan]
    assert [best.update(step, {"loss": value}) for step, value in enumerate(curve)] == [
        True, False, True, False, False,
    ]  # fmt: skip
    assert (best.value, best.step, best.exhausted) == (0.8, 2, True)


def test_without_patience_it_never_ends():
    best = Best("accuracy")
    for step in range(100):
        best.update(step, {"accuracy": 0.0})
    assert not best.exhausted


def test_what_it_saved_continues():
    best, again = Best("a", patience=5), Best("a", patience=5)
    for step, value in enumerate([3.0, 1.0, 1.0]):
        best.update(step, {"a": value})
    again.load(best.saved())
    assert again == best
