"""Dropout: its expectation, and the same mask in every layout."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dlcore import nn, parallel
from dlcore.errors import InputError
from dlcore.nn.dropout import sampled_dropout
from dlcore.nn.embedding import Embedding
from dlcore.nn.recurrent import LSTM, Recurrent

X = jax.random.normal(jax.random.key(0), (8, 5, 4)) + 3


def drop(x, rate=0.4, key=None):
    key = jax.random.key(3) if key is None else key
    return nn.Dropout(rate).apply({}, x, train=True, rngs={"dropout": key})


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_expectation(rate):
    """1e5 ones become 1 / (1 - rate) with probability 1 - rate, so var = rate / (1 - rate)."""
    y = drop(jnp.ones((100, 1000)), rate)
    assert abs(y.mean() - 1) < 3 * np.sqrt(rate / (1 - rate) / 1e5)
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=1e-6)
    # The rate is the same in every example and at every position.
    for axis in (0, 1):
        spread = np.sqrt(rate / (1 - rate) / y.shape[axis])
        assert np.abs(y.mean(axis) - 1).max() < 5 * spread


def test_examples_steps_and_layers_differ():
    masks = drop(jnp.ones((8, 1000))) == 0
    agreement = (masks[:, None] == masks[None]).mean(-1)[~np.eye(8, dtype=bool)]
    assert (
        np.abs(agreement - 0.52).max() < 0.1
    )  # Independent masks agree with probability 0.4^2 + 0.6^2.
    assert (drop(X) != drop(X, key=jax.random.key(4))).any()

    class Two(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x):
            return nn.Dropout(0.4)(x, train=True), nn.Dropout(0.4)(x, train=True)

    a, b = Two().apply({}, X, rngs={"dropout": jax.random.key(3)})
    assert (a != b).any()


def test_edges():
    np.testing.assert_array_equal(drop(X, 0.0), X)
    np.testing.assert_array_equal(drop(X, 1.0), jnp.zeros_like(X))
    np.testing.assert_array_equal(nn.Dropout(0.5).apply({}, X), X)
    gradient = jax.grad(lambda x: drop(x).sum())(X)
    np.testing.assert_allclose(gradient * X, drop(X), rtol=1e-6)


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_bad_rate(rate):
    with pytest.raises(InputError, match=f"dropout rate {rate} is not a probability"):
        drop(X, rate)


@pytest.mark.parametrize("offset, stride", [(0, 1), (6, 1), (3, 4)])
def test_micro_batches(offset, stride):
    def part(offset):
        with parallel.part_of_batch(parallel.Part(offset, stride)):
            return drop(X[jnp.array([0, stride]) + offset])

    expected = drop(X)[offset : offset + 2 * stride : stride]
    np.testing.assert_array_equal(jax.jit(part)(offset), expected)


def test_pmap():
    def part(x):
        with parallel.part_of_batch(
            parallel.Part(2 * jax.lax.axis_index("data"), axis_name="data")
        ):
            return drop(x)

    y = jax.pmap(part, "data")(X.reshape(4, 2, 5, 4))
    np.testing.assert_array_equal(y.reshape(X.shape), drop(X))


def test_mesh():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    y = jax.jit(drop, out_shardings=sharding)(jax.device_put(X, sharding))
    np.testing.assert_array_equal(y, drop(X))


class Noisy(flax.linen.Module):
    """Dropout of every kind beside batch normalisation, which must not train."""

    @flax.linen.compact
    def __call__(self, tokens, train=False):
        x = Embedding(9, 4, dropout=0.5)(tokens, train)
        x = nn.BatchNorm()(x, train)
        x = nn.Dropout(0.3)(x, train)
        return Recurrent(LSTM(3), state_dropout=0.2, candidate_dropout=0.4)(x, train=train)[1]


def test_evaluation_samples_all_kinds_of_dropout_and_nothing_else_trains():
    tokens = jnp.array([[1, 2, 3], [1, 2, 3], [4, 5, 6]])
    variables = Noisy().init(jax.random.key(0), tokens)
    plain = Noisy().apply(variables, tokens)
    outputs = []
    for seed in (1, 1, 2):
        with sampled_dropout() as rates:
            key = jax.random.key(seed)
            # Running statistics would be an error, because they are not mutable.
            outputs.append(Noisy().apply(variables, tokens, rngs={"dropout": key}))
    assert rates == [0.5, 0.3, 0.2, 0.4]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert (outputs[0] != outputs[2]).any() and (outputs[0] != plain).any()
    # Equal examples meet the same thinned network, wherever they stand.
    np.testing.assert_array_equal(outputs[0][0], outputs[0][1])
    np.testing.assert_array_equal(Noisy().apply(variables, tokens), plain)
