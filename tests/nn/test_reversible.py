"""Reversible instance normalisation."""

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.nn.reversible import ReversibleNorm

X = np.random.default_rng(0).normal(3, [1, 10, 3], size=(4, 12, 3)).astype(np.float32)
PARAMS = {
    "params": {"log_scale": jnp.log(jnp.array([2.0, 0.5, 1.0])), "bias": jnp.array([1.0, 0, -1])}
}


def test_it_is_the_paper_s_equations():
    y, (mean, deviation) = ReversibleNorm(3).apply(PARAMS, X)
    expected = (X - X.mean(1, keepdims=True)) / np.sqrt(X.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, expected * [2.0, 0.5, 1] + [1, 0, -1], atol=1e-4)
    assert mean.shape == deviation.shape == (4, 1, 3)


def test_restoring_undoes_it():
    norm = ReversibleNorm(3)
    y, moments = norm.apply(PARAMS, X)
    np.testing.assert_allclose(norm.apply(PARAMS, y, moments, method="restore"), X, rtol=1e-4)


def test_level_and_scale_of_a_window_come_back():
    norm = ReversibleNorm(3)
    y, moments = norm.apply(PARAMS, X)
    again, others = norm.apply(PARAMS, 5 * X + 7)
    np.testing.assert_allclose(again, y, atol=1e-3)
    first, second = (
        norm.apply(PARAMS, y[:, :2], each, method="restore") for each in (moments, others)
    )
    np.testing.assert_allclose(second, 5 * first + 7, rtol=1e-4)


def test_a_constant_window_gives_numbers_and_gradients():
    def loss(params, x):
        norm = ReversibleNorm(3)
        y, moments = norm.apply(params, x)
        return norm.apply(params, y * 2, moments, method="restore").sum()

    found = jax.value_and_grad(loss, argnums=(0, 1))(PARAMS, jnp.full((2, 5, 3), 1e4))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(found))


def test_it_keeps_the_type_and_computes_in_float32():
    y, (mean, _) = ReversibleNorm(3).apply(PARAMS, jnp.asarray(X, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16 and mean.dtype == jnp.float32
