"""Gradients divided by their mean magnitude."""

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.optim import divide_by_mean_magnitude


def test_each_leaf_has_a_mean_magnitude_of_one_or_is_zero():
    rng = np.random.default_rng(0)
    gradients = {
        "small": 1e-12 * rng.normal(size=(4, 5)),
        "large": 1e12 * rng.normal(size=7),
        "none": np.zeros(3),
    }
    gradients = {name: jnp.asarray(g, jnp.float32) for name, g in gradients.items()}
    tx = divide_by_mean_magnitude()
    found, _ = jax.jit(tx.update)(gradients, tx.init(gradients))
    for name in ("small", "large"):
        expected = gradients[name] / np.abs(gradients[name]).mean()
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)
    np.testing.assert_array_equal(found["none"], 0)


def test_what_is_not_finite_stays_so():
    tx = divide_by_mean_magnitude()
    assert not np.isfinite(tx.update(jnp.array([1.0, jnp.nan]), tx.init(None))[0]).any()
