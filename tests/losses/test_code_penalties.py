"""Penalties of codes against NumPy and jax.jacobian."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.losses import activation_divergence, jacobian_norm, sigmoid_jacobian_norm
from dlcore.parallel import Part, part_of_batch

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 6)).astype(np.float32)
KERNEL = RNG.normal(size=(6, 3)).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_contraction_of_sigmoid_units():
    """The formula of one layer, and both functions, give what jax.jacobian does."""

    def encode(x):
        return jax.nn.sigmoid(x @ KERNEL)

    codes = sigmoid(X.astype(np.float64) @ KERNEL)
    formula = ((codes * (1 - codes)) ** 2 @ (KERNEL.astype(np.float64) ** 2).sum(0)[:, None])[:, 0]

    @jax.jit
    def all_ways(x):
        jacobians = jax.vmap(jax.jacobian(lambda row: encode(row[None])[0]))(x)
        one_layer = sigmoid_jacobian_norm(encode(x), jnp.asarray(KERNEL))
        return (jacobians**2).sum((1, 2)), jacobian_norm(encode, x), one_layer

    for found in all_ways(X):
        np.testing.assert_allclose(found, formula, rtol=1e-5)


def test_the_contraction_of_a_deep_encoder_of_images():
    other = RNG.normal(size=(3, 2)).astype(np.float32)

    def encode(x):
        return jax.nn.sigmoid(jnp.tanh(x.reshape(len(x), -1) @ KERNEL) @ other)

    @jax.jit
    def both_ways(x):
        jacobians = jax.vmap(jax.jacobian(lambda row: encode(row[None])[0]))(x)
        # Training follows the gradient of the norm itself.
        gradient = jax.grad(lambda x: jacobian_norm(encode, x).sum())(x)
        return (jacobians**2).sum((1, 2, 3)), jacobian_norm(encode, x), gradient

    expected, found, gradient = both_ways(X.reshape(4, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_the_divergence_of_mean_activations():
    codes = RNG.random((5, 3))
    mean, rho = codes.mean(0), 0.05
    expected = (rho * np.log(rho / mean) + (1 - rho) * np.log((1 - rho) / (1 - mean))).sum()
    codes = codes.astype(np.float32)
    assert float(activation_divergence(codes, rho)) == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(activation_divergence(jnp.array([[0.0, 1.0]]), rho))


def test_the_divergence_is_of_the_global_batch():
    codes = RNG.random((4, 3)).astype(np.float32)
    expected = activation_divergence(codes, 0.1)
    with part_of_batch(Part(weight=jnp.array([1.0, 1, 1, 1, 0]))):
        padded = activation_divergence(np.concatenate([codes, codes[:1]]), 0.1)
    np.testing.assert_allclose(padded, expected, rtol=1e-6)

    @functools.partial(jax.pmap, axis_name="data")
    def of_parts(rows):
        with part_of_batch(Part(axis_name="data")):
            return activation_divergence(rows, 0.1)

    np.testing.assert_allclose(of_parts(codes.reshape(2, 2, 3)), [expected] * 2, rtol=1e-6)
