"""Objectives of activations against NumPy, with their gradients."""

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.losses import activation

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 5, 3)).astype(np.float32)


def value_and_gradient(objective, *args):
    def total(x):
        values = objective(x, *args)
        return values.sum(), values

    gradient, values = jax.jit(jax.grad(total, has_aux=True))(jnp.asarray(X))
    return np.asarray(values), np.asarray(gradient)


def test_a_layer():
    values, gradient = value_and_gradient(activation.layer_objective)
    np.testing.assert_allclose(values, (X**2).mean((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(gradient, 2 * X / 60, rtol=1e-6)


def test_a_channel_and_a_neuron():
    values, gradient = value_and_gradient(lambda x: activation.channel_objective(x, 2))
    np.testing.assert_allclose(values, X[..., 2].mean((1, 2)), rtol=1e-5)
    expected = np.zeros_like(X)
    expected[..., 2] = 1 / 20
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)
    values, gradient = value_and_gradient(lambda x: activation.neuron_objective(x, 1))
    np.testing.assert_array_equal(values, X[:, 2, 2, 1])
    assert (gradient != 0).sum() == 2 and (gradient[:, 2, 2, 1] == 1).all()
    logits = jnp.asarray(X[:, 0, 0])
    np.testing.assert_array_equal(activation.neuron_objective(logits, 0), logits[:, 0])


def test_a_guide_gives_each_place_its_best_match():
    guide = RNG.normal(size=(7, 3)).astype(np.float32)
    values, gradient = value_and_gradient(activation.guided_objective, jnp.asarray(guide))
    products = X.reshape(2, 20, 3) @ guide.T
    np.testing.assert_allclose(values, products.max(-1).mean(-1), rtol=1e-5)
    # The published program: the features of the guide at the largest product, as the gradient.
    best = guide[products.argmax(-1)].reshape(X.shape)
    np.testing.assert_allclose(gradient, best / 20, rtol=1e-5)
