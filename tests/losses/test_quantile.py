"""The pinball loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.losses import pinball


def test_by_hand():
    # y = 3 above p = 1: q * 2; y = 3 below p = 5: (1 - q) * 2.
    found = pinball(jnp.array([[1.0, 5.0]]), jnp.array([3.0]), jnp.array([0.9, 0.9]))
    np.testing.assert_allclose(found, [[1.8, 0.2]], rtol=1e-6)


def test_as_scikit_learn_has_it():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    y, p = rng.normal(size=50), rng.normal(size=(50, 3))
    found = pinball(jnp.array(p), jnp.array(y), jnp.array([0.1, 0.5, 0.8]))
    for place, q in enumerate((0.1, 0.5, 0.8)):
        expected = metrics.mean_pinball_loss(y, p[:, place], alpha=q)
        assert float(found[:, place].mean()) == pytest.approx(expected, rel=1e-5)


def test_its_minimum_is_the_quantile():
    y = jnp.array(np.random.default_rng(0).exponential(size=400), jnp.float32)
    q = jnp.array([0.1, 0.5, 0.9])
    grid = jnp.linspace(0, 4, 801)
    losses = jax.vmap(lambda p: pinball(jnp.full((400, 3), p), y, q).mean(0))(grid)
    best = np.asarray(grid)[np.argmin(losses, axis=0)]
    np.testing.assert_allclose(best, np.quantile(y, [0.1, 0.5, 0.9]), atol=0.02)


def test_it_sums_in_float32():
    found = pinball(jnp.ones((2, 3, 1), jnp.bfloat16), jnp.ones((2, 3)), jnp.array([0.5]))
    assert found.dtype == jnp.float32 and found.shape == (2, 3, 1)
