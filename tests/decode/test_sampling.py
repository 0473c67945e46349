"""Sampling keeps the right tokens, draws them at the right rates, and equals a loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.decode import filter_logits, generate, sample
from dlcore.errors import InputError

LOGITS = jax.random.normal(jax.random.key(0), (6, 50)) * 3
PROBABILITIES = np.array([0.15, 0.5, 0.05, 0.3], np.float32)


@pytest.mark.parametrize(
    "settings, kept",
    [
        ({}, [0, 1, 2, 3]),
        ({"top_k": 1}, [1]),
        ({"top_k": 2}, [1, 3]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({"top_p": 1e-9}, [1]),
        ({"top_p": 0.49}, [1]),
        ({"top_p": 0.51}, [1, 3]),
        ({"top_p": 0.79}, [1, 3]),
        ({"top_p": 0.81}, [0, 1, 3]),
        ({"top_p": 0.96}, [0, 1, 2, 3]),
        ({"top_p": 1.0}, [0, 1, 2, 3]),
        # Of the likeliest two the first has 0.5 / 0.8.
        ({"top_k": 2, "top_p": 0.6}, [1]),
        ({"top_k": 2, "top_p": 0.65}, [1, 3]),
        # Squared and renormalised, the first has 0.25 / 0.365.
        ({"temperature": 0.5, "top_p": 0.68}, [1]),
        # The shares of the likeliest are 0.3, 1, 0.1 and 0.6.
        ({"min_p": 0.09}, [0, 1, 2, 3]),
        ({"min_p": 0.11}, [0, 1, 3]),
        ({"min_p": 0.59}, [1, 3]),
        ({"min_p": 1.0}, [1]),
        ({"min_p": 0.2, "top_k": 2}, [1, 3]),
        ({"min_p": 0.5, "top_p": 0.96}, [1, 3]),
        ({"min_p": 0.2, "top_p": 0.6}, [1, 3]),
        # Squared, they are 0.09, 1, 0.01 and 0.36.
        ({"min_p": 0.11, "temperature": 0.5}, [1, 3]),
        ({"temperature": 0}, [1]),
        ({"temperature": 0, "top_k": 3, "top_p": 0.9}, [1]),
    ],
    ids=str,
)
def test_filters_keep_the_tokens_worked_out_by_hand(settings, kept):
    filtered = filter_logits(jnp.log(PROBABILITIES)[None] + 7, **settings)
    expected = np.zeros(4)
    expected[kept] = PROBABILITIES[kept] ** (1 / (settings.get("temperature") or 1))
    np.testing.assert_allclose(jax.nn.softmax(filtered)[0], expected / expected.sum(), rtol=1e-5)


def test_of_equal_logits_the_lower_tokens_are_kept():
    filtered = filter_logits(jnp.array([[1.0, 2.0, 2.0, 2.0]]), top_k=2)
    np.testing.assert_array_equal(jnp.isfinite(filtered), [[False, True, True, False]])


def test_a_share_of_one_keeps_even_tokens_that_the_rounded_sum_does_not_see():
    filtered = filter_logits(jnp.array([[30.0, 0.0, -5.0]]), top_p=1.0)
    np.testing.assert_array_equal(filtered, [[0.0, -30.0, -35.0]])


def test_entropy_rises_with_the_temperature():
    entropies = []
    for temperature in (0.1, 0.3, 0.7, 1.0, 1.5, 3.0, 10.0):
        p = jax.nn.softmax(filter_logits(LOGITS, temperature=temperature))
        entropies.append(jax.scipy.special.entr(p).sum(-1))
    assert (np.diff(np.stack(entropies), axis=0) > 0).all()
    assert (entropies[-1] < np.log(50)).all()


@pytest.mark.parametrize("temperature", [0, 1e-6])
@pytest.mark.parametrize("scale", [1.0, 1e34])
def test_no_temperature_is_greedy(temperature, scale):
    tokens = sample(jax.random.key(5), LOGITS * scale, temperature=temperature)
    assert tokens.dtype == jnp.int32
    np.testing.assert_array_equal(tokens, LOGITS.argmax(-1))


@pytest.mark.parametrize("settings", [{}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 1.0}], ids=str)
def test_greedy_takes_what_the_filter_leaves(settings):
    """The lowest of the likeliest, which is the only finite logit."""
    logits = jnp.array([[0.0, 2.0, 1.0, 2.0], [-1.0, -1.0, -1.0, -jnp.inf]])
    left = filter_logits(logits, temperature=0, **settings)
    tokens = sample(jax.random.key(5), logits, temperature=0, **settings)
    np.testing.assert_array_equal(jnp.isfinite(left).sum(-1), 1)
    np.testing.assert_array_equal(tokens, left.argmax(-1))


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, PROBABILITIES),
        ({"top_p": 0.6}, [0, 0.625, 0, 0.375]),
        ({"min_p": 0.5}, [0, 0.625, 0, 0.375]),
        ({"temperature": 0.5}, np.square(PROBABILITIES) / np.square(PROBABILITIES).sum()),
    ],
    ids=str,
)
def test_frequencies(settings, expected):
    rows = 40_000
    logits = jnp.log(jnp.tile(PROBABILITIES, (rows, 1)))
    tokens = jax.jit(functools.partial(sample, **settings))(jax.random.key(5), logits)
    shares = np.bincount(tokens, minlength=4) / rows
    expected = np.array(expected)
    assert (np.abs(shares - expected) <= 4 * np.sqrt(expected * (1 - expected) / rows)).all()


@pytest.mark.parametrize("settings", [{}, {"top_k": 20}, {"top_p": 0.95}], ids=str)
def test_a_row_draws_the_same_whatever_is_beside_it(settings):
    flat = jnp.zeros((6, 50))
    tokens = sample(jax.random.key(5), flat, **settings)
    np.testing.assert_array_equal(sample(jax.random.key(5), flat[:2], **settings), tokens[:2])
    np.testing.assert_array_equal(
        sample(jax.random.key(5), flat.at[2:].set(LOGITS[2:]))[:2],
        sample(jax.random.key(5), flat)[:2],
    )
    assert len(np.unique(tokens)) > 1
    assert (sample(jax.random.key(6), flat, **settings) != tokens).any()


def test_half_precision_is_computed_in_single():
    logits = LOGITS.astype(jnp.bfloat16)
    expected = filter_logits(logits.astype(jnp.float32), temperature=0.7, top_p=0.9)
    np.testing.assert_array_equal(filter_logits(logits, temperature=0.7, top_p=0.9), expected)


def recurrence(carry, token):
    """A tiny recurrent model of 50 tokens whose carry is a tree."""
    table = jax.random.normal(jax.random.key(1), (50, 8))
    hidden = jnp.tanh(carry["hidden"] * 0.9 + table[token])
    return {"hidden": hidden, "count": carry["count"] + 1}, 2 * hidden @ table.T


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"temperature": 0},
        {"top_k": 5, "top_p": 0.9},
        pytest.param({"min_p": 0.2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_generation_is_the_loop_over_its_own_tokens(settings):
    first = jnp.array([3, 1, 4], jnp.int32)
    start = {"hidden": jnp.zeros((3, 8)), "count": jnp.zeros((), jnp.int32)}
    scanned = jax.jit(functools.partial(generate, recurrence, steps=12, **settings))
    found = scanned(start, first, jax.random.key(5))
    assert found.shape == (3, 12) and found.dtype == jnp.int32

    carry, token, expected = start, first, []
    for step in range(12):
        carry, logits = recurrence(carry, token)
        token = sample(jax.random.fold_in(jax.random.key(5), step), logits, **settings)
        expected.append(token)
    np.testing.assert_array_equal(found, np.stack(expected, axis=1))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"temperature": -1.0}, "temperature -1.0 is not possible"),
        ({"temperature": float("nan")}, "temperature nan is not possible"),
        ({"top_k": 0}, "top_k 0 keeps no token"),
        ({"top_p": 0.0}, "top_p 0.0 is not a share"),
        ({"top_p": 1.5}, "top_p 1.5 is not a share"),
        ({"min_p": 0.0}, "min_p 0.0 is not a share"),
        ({"min_p": 1.1}, "min_p 1.1 is not a share"),
    ],
    ids=str,
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        sample(jax.random.key(5), LOGITS, **settings)
