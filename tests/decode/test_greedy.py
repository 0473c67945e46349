"""Greedy search equals plain NumPy, and beam search of width 1 equals it bit for bit."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from plain_search import CONSTRAINTS, END, FIRST, OBJECTIVES, Model, markov, search

from dlcore.decode import Objective, beam_search, greedy
from dlcore.errors import InputError

find_beam = functools.partial(search, beam_search)
find_greedy = functools.partial(search, greedy)


@pytest.mark.parametrize(
    "objective, constraints",
    [
        *(pytest.param(one, {}, marks=pytest.mark.slow) for one in OBJECTIVES[:-1:4]),
        (OBJECTIVES[-1], {}),
        *(
            pytest.param(OBJECTIVES[1], constraints, marks=[pytest.mark.slow] * (i % 2))
            for i, constraints in enumerate(CONSTRAINTS[2:])
        ),
    ],
    ids=str,
)
def test_width_one_is_greedy_bit_for_bit(objective, constraints):
    model, sentences = Model(4, vocab=40, spread=0.3), range(30)
    tokens, lengths, log_probs = find_greedy(model, sentences, steps=30, **constraints)
    assert (lengths == 30).any() and (lengths < 30).any()
    found = find_beam(
        model,
        sentences,
        width=1,
        steps=30,
        objective=Objective(**objective),
        coverage=model.coverage,
        **constraints,
    )
    np.testing.assert_array_equal(found.tokens[:, 0], tokens)
    np.testing.assert_array_equal(found.lengths[:, 0], lengths)
    np.testing.assert_array_equal(found.log_probs[:, 0], log_probs)


def test_width_one_is_greedy_where_the_sum_rounds_the_difference_away():
    # From about the 30th token on both make the same log P.
    next_token = markov([np.exp([0, -9, 0.4, 0.4 + 5e-7])] * 4)
    settings = {"carry": (), "first": jnp.array([FIRST]), "end": END, "steps": 90}
    tokens, _, log_probs = greedy(next_token, **settings)
    found = beam_search(next_token, width=1, **settings)
    assert (tokens[0, :-1] == 3).all() and log_probs < -64
    np.testing.assert_array_equal(found.tokens[:, 0], tokens)
    np.testing.assert_array_equal(found.log_probs[:, 0], log_probs)


@pytest.mark.parametrize("constraints", CONSTRAINTS[2:4], ids=str)
def test_greedy_takes_the_likeliest_allowed_token(constraints):
    model = Model(5, vocab=6, spread=0.5)
    found = find_greedy(model, range(8), steps=7, **constraints)
    for sentence, (tokens, length, log_prob) in enumerate(zip(*found, strict=True)):
        expected = model.begin(sentence)
        while END not in expected.tokens:
            choices = model.extensions(expected, steps=7, **constraints)
            expected = max(choices, key=lambda one: one.log_prob)
        assert tuple(tokens[:length]) == expected.tokens and not tokens[length:].any()
        np.testing.assert_allclose(log_prob, expected.log_prob, rtol=2e-6)


@pytest.mark.parametrize("end", [0, END])
@pytest.mark.parametrize("logit", [0.0, np.nan])
def test_constraints_or_a_model_that_leave_nothing_give_nothing(logit, end):
    # Two other tokens, once each, are too few for four before the end.
    next_token = lambda carry, token: (carry, jnp.full((len(token), 3), logit))  # noqa: E731
    settings = {"end": end, "steps": 6, "min_length": 5, "no_repeat": 1}
    first = jnp.array([FIRST])
    found = beam_search(next_token, (), first, width=2, **settings)
    tokens, lengths, log_probs = greedy(next_token, (), first, **settings)
    assert found.lengths == 0 and lengths == 0
    assert found.scores == -np.inf and found.log_probs == -np.inf and log_probs == -np.inf
    assert not found.tokens.any() and not tokens.any()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"steps": 0}, "0 decoding steps leave no room"),
        ({"min_length": 5}, "minimum length 5 is not possible in 4 decoding steps; give 0 to 4"),
        ({"no_repeat": 0}, "n-grams of size 0 do not exist"),
    ],
    ids=str,
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        greedy(markov(np.eye(3)), (), jnp.array([FIRST]), end=END, **{"steps": 4, **settings})
