"""Pooling over time equals NumPy on each sequence alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.nn.recurrent.layers import Bidirectional
from dlcore.nn.recurrent.lstm import LSTM
from dlcore.nn.sequences import (
    AttentionPooling,
    last_over_time,
    length_mask,
    max_over_time,
    mean_over_time,
)

B, T, D = 4, 6, 4
X = np.random.default_rng(0).normal(-3, 1, (B, T, D)).astype(np.float32)
LENGTHS = np.array([6, 3, 1, 0], np.int32)
ATTENTION = AttentionPooling(features=3)


@functools.cache
def variables():
    # The first call may lie inside a function that is being traced.
    with jax.ensure_compile_time_eval():
        return jax.jit(ATTENTION.init)(jax.random.key(1), X, LENGTHS)


def attend(x, lengths):
    return ATTENTION.apply(variables(), x, lengths)[0]


def attention(rows):
    params = variables()["params"]
    hidden = np.tanh(rows @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
    weights = np.exp(hidden @ params["score"]["kernel"])
    return (weights / weights.sum() * rows).sum(0)


def bidirectional(x, lengths):
    return last_over_time(x, lengths, bidirectional=True)


POOLINGS = {
    "last": (last_over_time, lambda rows: rows[-1]),
    "bidirectional": (bidirectional, lambda rows: np.concatenate([rows[-1, :2], rows[0, 2:]])),
    "max": (max_over_time, lambda rows: rows.max(0)),
    "mean": (mean_over_time, lambda rows: rows.mean(0)),
    "attention": (attend, attention),
}


def test_length_mask():
    expected = [[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    np.testing.assert_array_equal(length_mask(jnp.array([3, 0, 4]), 4), np.array(expected, bool))


@pytest.mark.parametrize("garbage", [0, 1e30, np.nan])
@pytest.mark.parametrize("name", POOLINGS)
def test_each_sequence_is_pooled_as_alone(name, garbage):
    pool, expected = POOLINGS[name]
    past = np.arange(T + 3) >= np.asarray(LENGTHS)[:, None]
    longer = jnp.where(past[..., None], garbage, jnp.pad(X, ((0, 0), (0, 3), (0, 0))))

    def loss(x):
        pooled = pool(x, LENGTHS)
        return jnp.sum(jnp.sin(pooled)), pooled

    (_, pooled), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(longer)
    for row, length in enumerate(map(int, LENGTHS)):
        rows = np.asarray(X[row, :length])
        want = expected(rows) if length else np.zeros(D)
        np.testing.assert_allclose(pooled[row], want, rtol=1e-5)
    assert not gradient[past].any()
    assert np.abs(gradient[:3]).max((1, 2)).all()


@pytest.mark.parametrize("garbage", [1e30, np.nan])
def test_attention_weights(garbage):
    """Weights are right, and parameters get their gradient from the real steps alone."""
    past = np.arange(T) >= np.asarray(LENGTHS)[:, None]
    weights = ATTENTION.apply(variables(), jnp.where(past[..., None], garbage, X), LENGTHS)[1]
    assert not weights[past].any()
    np.testing.assert_allclose(weights.sum(1), [1, 1, 1, 0], rtol=1e-6)

    def loss(variables, x):
        return jnp.sum(ATTENTION.apply(variables, x, LENGTHS)[0] ** 2)

    clean = jax.grad(loss)(variables(), jnp.where(past[..., None], 0, X))
    spoilt = jax.grad(loss)(variables(), jnp.where(past[..., None], garbage, X))
    for a, b in zip(*map(jax.tree.leaves, (clean, spoilt)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
        assert np.abs(a).max() > 0


def test_last_of_a_bidirectional_layer_is_its_carry():
    layer = Bidirectional(LSTM(3))
    (carry, y), _ = layer.init_with_output(jax.random.key(0), X, lengths=LENGTHS)
    h = np.concatenate([carry["forward"]["h"], carry["backward"]["h"]], -1)
    np.testing.assert_array_equal(bidirectional(y, LENGTHS), h)
