"""The shapes of recurrent nets, on the cells whose equations are the shortest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.decode import generate
from dlcore.models.text import VectorToSequence
from dlcore.nn.recurrent import LSTM, Recurrent, Vanilla, repeat_input

B, T, V = 5, 6, 11
LENGTHS = jnp.array([6, 4, 2, 1, 0])
PAST = np.arange(T) >= np.asarray(LENGTHS)[:, None]
TOKENS = jax.random.randint(jax.random.key(0), (B, T), 0, V)


def test_one_to_one_is_a_feed_forward_net():
    x = jax.random.normal(jax.random.key(2), (B, 1, 3))
    (_, y), variables = Recurrent(Vanilla(4)).init_with_output(jax.random.key(2), x)
    p = variables["params"]
    np.testing.assert_allclose(
        y[:, 0], np.tanh(x[:, 0] @ p["input_kernel"] + p["bias"][None]), rtol=1e-6
    )


def test_the_same_input_repeated():
    """h = tanh(x W + h U + b) with one x, three times."""
    x = jax.random.normal(jax.random.key(2), (B, 3))
    (_, y), variables = Recurrent(Vanilla(4)).init_with_output(
        jax.random.key(2), repeat_input(x, 3)
    )
    p, h = variables["params"], np.zeros((B, 4))
    for t in range(3):
        h = np.tanh(x @ p["input_kernel"] + h @ p["recurrent_kernel"] + p["bias"][None])
        np.testing.assert_allclose(y[:, t], h, rtol=1e-4, atol=1e-6)


VECTORS = jax.random.normal(jax.random.key(7), (B, 3))


@pytest.mark.parametrize(
    "cell", [LSTM(8), pytest.param(Vanilla(8), marks=pytest.mark.slow)], ids=["lstm", "vanilla"]
)
def test_one_to_many(cell):
    """Teacher forcing is `next_token` step by step; greedy decoding feeds back its own tokens."""
    model = VectorToSequence(cell, V, 4)
    variables = jax.jit(model.init)(jax.random.key(2), VECTORS, TOKENS)
    apply = functools.partial(jax.jit(model.apply, static_argnames="method"), variables)
    logits, carry = apply(VECTORS, TOKENS), apply(VECTORS, method="initial_carry")
    next_token = functools.partial(apply, method="next_token")
    step = carry
    for t in range(T):
        step, one = next_token(step, TOKENS[:, t])
        np.testing.assert_allclose(one, logits[:, t], rtol=1e-5, atol=1e-6)
    greedy = generate(next_token, carry, TOKENS[:, 0], jax.random.key(2), steps=T, temperature=0)
    fed = jnp.concatenate([TOKENS[:, :1], greedy[:, :-1]], axis=1)
    np.testing.assert_array_equal(apply(VECTORS, fed).argmax(-1), greedy)
    other = apply(VECTORS + 1, TOKENS)
    assert (np.abs(other - logits).max((1, 2)) > 0).all()


def test_one_to_many_ignores_padding_and_trains_all():
    model = VectorToSequence(LSTM(8), V, 4)
    variables = jax.jit(model.init)(jax.random.key(2), VECTORS, TOKENS)

    def loss(variables, tokens):
        logits = model.apply(variables, VECTORS, tokens)
        return jnp.where(PAST[..., None], 0, jnp.sin(logits)).sum()

    run = jax.jit(jax.value_and_grad(loss))
    value, gradient = run(variables, TOKENS)
    padded, same = run(variables, jnp.where(PAST, 0, TOKENS))
    assert value == padded
    jax.tree.map(np.testing.assert_array_equal, same, gradient)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)
