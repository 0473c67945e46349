"""The insides of recurrent nets: the flow of gradients through time, and the gates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.check.recurrent import gate_statistics, gradient_by_distance
from dlcore.errors import InputError
from dlcore.nn.recurrent.gru import GRU, GRUAfter
from dlcore.nn.recurrent.highway import Highway
from dlcore.nn.recurrent.lstm import LSTM, PeepholeLSTM, ProjectionLSTM
from dlcore.nn.recurrent.vanilla import Vanilla

RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(3, 5, 4)), jnp.float32)  # [B, T, D]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_two_steps_by_hand():
    """h = tanh(0.5 x + 2 h): back through each step the gradient is multiplied by 2 (1 - h^2)."""
    params = {
        "input_kernel": jnp.array([[0.5]]),
        "recurrent_kernel": jnp.array([[2.0]]),
        "bias": jnp.zeros(1),
    }
    norms = gradient_by_distance(
        Vanilla(1), params, jnp.array([[[1.0], [-1.0]]]), key=jax.random.key(0)
    )
    first = np.tanh(0.5)
    second = np.tanh(-0.5 + 2 * first)
    back = 2 * (1 - second**2)
    np.testing.assert_allclose(norms, [1, back, back * 2 * (1 - first**2)], rtol=1e-6)


@pytest.mark.parametrize("radius", [0.7, 1.0, 1.3])
def test_a_linear_net_follows_the_spectral_radius(radius):
    """With all units active a rectified net is linear: k steps multiply by W^k."""
    kernel = RANDOM.random((8, 8))
    kernel *= radius / np.abs(np.linalg.eigvals(kernel)).max()
    cell = Vanilla(8, "relu")
    params = {**cell.init(jax.random.key(0), 4), "input_kernel": jnp.ones((4, 8))}
    params["recurrent_kernel"] = jnp.asarray(kernel, jnp.float32)
    norms = gradient_by_distance(cell, params, jnp.ones((16, 30, 4)), key=jax.random.key(0))

    directions = np.asarray(jax.random.normal(jax.random.key(0), (16, 8)), np.float64)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    expected = [
        np.linalg.norm(directions @ np.linalg.matrix_power(kernel.T, k), axis=1).mean()
        for k in range(31)
    ]
    np.testing.assert_allclose(norms, expected, rtol=1e-4)
    np.testing.assert_allclose(norms[11:] / norms[10:-1], radius, rtol=1e-3)


@pytest.mark.parametrize("radius, decays", [(0.8, True), (1.2, False)])
def test_tanh_vanishes_below_radius_one_and_not_above(radius, decays):
    """An orthogonal kernel times r: in the linear range of tanh the norm is r^k, beyond it less."""
    cell = Vanilla(16)
    params = cell.init(jax.random.key(0), 4)
    params["recurrent_kernel"] *= radius
    small = gradient_by_distance(cell, params, 1e-4 * X, key=jax.random.key(0))
    np.testing.assert_allclose(small, radius ** np.arange(6), rtol=1e-4)
    large = gradient_by_distance(cell, params, X, key=jax.random.key(0))
    assert np.all(large[1:] < small[1:])
    assert (small[-1] < 1) == decays


@pytest.mark.parametrize(
    "cell",
    [
        Vanilla(6),
        LSTM(6),
        pytest.param(ProjectionLSTM(6, projection=3), marks=pytest.mark.slow),
        pytest.param(PeepholeLSTM(6), marks=pytest.mark.slow),
        GRU(6),
        pytest.param(Highway(6), marks=pytest.mark.slow),
    ],
    ids=lambda cell: type(cell).__name__,
)
def test_the_longest_distance_is_the_gradient_by_the_first_carry(cell):
    params = cell.init(jax.random.key(0), 4)
    directions = jax.random.normal(jax.random.key(0), (3, cell.output_features))
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)

    @jax.jit
    @jax.grad
    def gradient_of(carry, x, direction):
        for step in x:
            carry, y = cell(params, carry, step[None])
        return jnp.vdot(direction, y[0])

    norms = []
    for x, direction in zip(X, directions, strict=True):
        gradient = gradient_of(cell.initial_carry(1), x, direction)
        norms.append(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient))))
    measured = gradient_by_distance(cell, params, X, key=jax.random.key(0))
    assert measured.shape == (6,) and measured[0] == 1
    np.testing.assert_allclose(measured[-1], np.mean(norms), rtol=1e-5)


def lstm_gates(cell, p, h, x):
    i, f, _, o = np.split(x @ p["input_kernel"] + h @ p["recurrent_kernel"] + p["bias"], 4, -1)
    return {"input": sigmoid(i), "forget": sigmoid(f), "output": sigmoid(o)}


def gru_gates(cell, p, h, x):
    inputs = x @ p["input_kernel"] + p["bias"]
    recurrent = h @ p["recurrent_kernel"]
    r, u = (
        sigmoid(inputs[:, columns] + recurrent[:, columns]) for columns in (slice(6), slice(6, 12))
    )
    return {"reset": r, "update": u}


def highway_gates(cell, p, h, x):
    first = x @ p["input_kernel"] + p["bias"] + h @ p["recurrent_kernel_1"]
    t = sigmoid(first[:, 6:])
    s = t * np.tanh(first[:, :6]) + (1 - t) * h
    second = p["depth_bias"][0] + s @ p["recurrent_kernel_2"]
    return {"transform 1": t, "transform 2": sigmoid(second[:, 6:])}


@pytest.mark.parametrize(
    "cell, rule",
    [
        (LSTM(6), lstm_gates),
        (ProjectionLSTM(6, projection=3), lstm_gates),
        (GRU(6), gru_gates),
        (GRUAfter(6), gru_gates),
        (Highway(6), highway_gates),
    ],
    ids=lambda value: type(value).__name__,
)
def test_gates_are_counted_without_the_padding(cell, rule):
    params = {name: 4 * value for name, value in cell.init(jax.random.key(0), 4).items()}
    plain = {name: np.asarray(value, np.float64) for name, value in params.items()}
    lengths = [5, 2, 3]
    values: dict[str, list[np.ndarray]] = {}
    for x, length in zip(X, lengths, strict=True):
        carry = cell.initial_carry(1)
        for step in x[:length]:
            for name, gate in rule(
                cell, plain, np.asarray(carry["h"]), np.asarray(step)[None]
            ).items():
                values.setdefault(name, []).append(np.asarray(gate)[0])
            carry, _ = cell(params, carry, step[None])

    padded = X.at[1, 2:].set(1e6)
    measured = gate_statistics(cell, params, padded, lengths=jnp.array(lengths))
    assert measured.keys() == values.keys()
    shares = []
    for name, gate in values.items():
        shut, opened = np.mean(np.array(gate) < 0.1, axis=0), np.mean(np.array(gate) > 0.9, axis=0)
        np.testing.assert_allclose(measured[name].shut, shut, atol=1e-6)
        np.testing.assert_allclose(measured[name].open, opened, atol=1e-6)
        shares += [shut, opened]
    assert 0 < np.mean(shares) < 0.5


def test_all_steps_count_without_lengths():
    params = LSTM(6).init(jax.random.key(0), 4)
    whole = gate_statistics(LSTM(6), params, X, lengths=jnp.full(3, 5))
    np.testing.assert_array_equal(gate_statistics(LSTM(6), params, X)["forget"], whole["forget"])


@pytest.mark.parametrize("cell", [Vanilla(6), PeepholeLSTM(6)])
def test_a_cell_whose_gates_are_not_known_is_an_input_error(cell):
    with pytest.raises(InputError, match="unknown cell with gates .* choose one of: GRU, "):
        gate_statistics(cell, cell.init(jax.random.key(0), 4), X)
