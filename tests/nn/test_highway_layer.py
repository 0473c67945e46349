"""The highway layer follows its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.nn.highway import Highway


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def variables_of(layer, x, bias=None):
    """Draws variables with random biases, or the given ones for h and T."""
    params = jax.jit(layer.init)(jax.random.key(0), x)["params"]["affine"]
    new = jax.random.normal(jax.random.key(1), params["bias"].shape) if bias is None else bias
    return {"params": {"affine": {"kernel": params["kernel"], "bias": new}}}


def plain(x, kernel, bias, activation):
    """Computes equation 3, one vector (C,) at a time."""
    y = np.empty_like(x)
    gates = np.empty_like(x)
    half = x.shape[-1]
    for place in np.ndindex(x.shape[:-1]):
        h = activation(x[place] @ kernel[:, :half] + bias[:half])
        gates[place] = sigmoid(x[place] @ kernel[:, half:] + bias[half:])
        y[place] = h * gates[place] + x[place] * (1 - gates[place])
    return y, gates


@pytest.mark.parametrize(
    "name, function", [("relu", lambda x: np.maximum(x, 0)), ("tanh", np.tanh)]
)
def test_dense(name, function):
    x = jax.random.normal(jax.random.key(2), (4, 3, 5))
    layer = Highway(activation=name)
    variables = variables_of(layer, x)
    affine = jax.tree.map(np.asarray, variables["params"]["affine"])
    expected = plain(np.asarray(x), affine["kernel"], affine["bias"], function)
    for y, want in zip(layer.apply(variables, x), expected, strict=True):
        np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


def test_convolutional():
    """It equals dense kernels on each pixel's flattened window of the zero-padded image."""
    x = np.array(jax.random.normal(jax.random.key(2), (2, 4, 5, 3)))
    layer = Highway(kernel_size=(3, 3), activation="tanh")
    variables = variables_of(layer, x)
    affine = jax.tree.map(np.asarray, variables["params"]["affine"])
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y, gates = layer.apply(variables, x)
    for b, i, j in np.ndindex(x.shape[:-1]):
        window = padded[b, i : i + 3, j : j + 3].reshape(-1)
        total = window @ affine["kernel"].reshape(-1, 6) + affine["bias"]
        gate = sigmoid(total[3:])
        want = np.tanh(total[:3]) * gate + x[b, i, j] * (1 - gate)
        np.testing.assert_allclose(gates[b, i, j], gate, rtol=1e-5)
        np.testing.assert_allclose(y[b, i, j], want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kernel_size", [None, (3, 3)])
def test_a_closed_gate_carries_and_an_open_one_transforms(kernel_size):
    """Equation 4: y = x where T = 0, y = h(x) where T = 1."""
    x = jax.random.normal(jax.random.key(2), (2, 4, 4, 3))
    layer = Highway(kernel_size)
    for bias, gate in ((-200.0, 0.0), (200.0, 1.0)):
        variables = variables_of(layer, x, jnp.repeat(jnp.array([0.0, bias]), 3))
        y, t = layer.apply(variables, x)
        np.testing.assert_array_equal(t, jnp.full_like(x, gate))
        if gate == 0:
            np.testing.assert_array_equal(y, x)
        else:
            assert (y >= 0).all() and (y == 0).any() and (y != x).all()


def test_the_bias_of_the_gates_alone_starts_below_zero():
    x = jnp.zeros((1, 4))
    bias = Highway().init(jax.random.key(0), x)["params"]["affine"]["bias"]
    np.testing.assert_array_equal(bias, np.array([0, 0, 0, 0, -1, -1, -1, -1]))
    layer = Highway(transform_bias=-3.0)
    np.testing.assert_allclose(
        layer.init_with_output(jax.random.key(0), x)[0][1], sigmoid(-3), rtol=1e-6
    )


@pytest.mark.parametrize("kernel_size, window", [(None, 1), ((3, 3), 9), ((5, 1), 5)])
def test_twice_the_parameters_of_one_layer(kernel_size, window):
    variables = Highway(kernel_size).init(jax.random.key(0), jnp.ones((1, 6, 6, 7)))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 2 * (window * 7 + 1) * 7


def test_unknown_activation():
    with pytest.raises(InputError, match="unknown activation 'reluu'"):
        Highway(activation="reluu").init(jax.random.key(0), jnp.ones((1, 4)))
