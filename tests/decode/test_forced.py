"""Scores of given sequences equal those of the search; scheduled sampling follows its process."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_search import END, FIRST, Model

from dlcore.decode import Objective, beam_search, scheduled_inputs, score_sequences
from dlcore.errors import InputError

ROWS = 4000


@pytest.mark.parametrize(
    "objective",
    [pytest.param(Objective(), marks=pytest.mark.slow), Objective("gnmt", 0.8, coverage=0.5)],
    ids=lambda o: o.normalise,
)
def test_what_a_search_found_scores_the_same_when_given(objective):
    model, sentences, places = Model(1, vocab=5), jnp.array([4, 77, 180]), 6
    first = jnp.full(3, FIRST)
    how = {"objective": objective, "coverage": model.coverage}
    found = beam_search(
        model.next_token,
        model.start(sentences),
        first,
        end=END,
        width=places,
        n_best=places,
        steps=7,
        **how,
    )
    assert len(np.unique(found.lengths)) > 2
    # Tokens after the end must not matter.
    after = jnp.arange(7)[None, None] >= found.lengths[..., None]
    tokens = jnp.where(after, 3, found.tokens).reshape(-1, 7)
    log_probs, scores = jax.jit(functools.partial(score_sequences, model.next_token, **how))(
        model.start(jnp.repeat(sentences, places)),
        jnp.repeat(first, places),
        tokens,
        found.lengths.reshape(-1),
    )
    np.testing.assert_allclose(log_probs, found.log_probs.reshape(-1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scores, found.scores.reshape(-1), rtol=1e-6, atol=1e-6)


def test_a_penalty_needs_the_attention():
    model, tokens = Model(1, vocab=5), jnp.array([[2, END]])
    with pytest.raises(InputError, match="needs the attention"):
        score_sequences(
            model.next_token,
            model.start(jnp.array([0])),
            tokens[:, 0],
            tokens,
            jnp.array([2]),
            objective=Objective(coverage=1),
        )


def schedule(inputs, share, *, model=None, rows=None, key=None):
    """Returns scheduled inputs of rows that all hold the same sentence."""
    key = jax.random.key(11) if key is None else key
    model = model or Model(3, vocab=4)
    rows = jnp.arange(len(inputs)) if rows is None else rows
    run = jax.jit(functools.partial(scheduled_inputs, model.next_token))
    start = model.start(jnp.full(len(inputs), 8))
    return np.asarray(run(start, jnp.asarray(inputs), key, share=share, rows=rows))


def test_without_a_share_the_inputs_stay():
    inputs = np.random.default_rng(0).integers(4, size=(5, 7))
    found = schedule(inputs, 0.0)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, inputs)


def test_with_every_input_drawn_the_given_ones_do_not_matter_but_for_the_first():
    inputs = np.random.default_rng(0).integers(4, size=(9, 6))
    others = np.concatenate([inputs[:, :1], 3 - inputs[:, 1:]], axis=1)
    found = schedule(inputs, 1.0)
    np.testing.assert_array_equal(found, schedule(others, 1.0))
    assert (found != schedule(inputs, 1.0, key=jax.random.key(12))).any()


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_frequencies_are_those_of_the_process_of_the_paper(share):
    """Every sequence of chosen inputs has the probability that the equations give."""
    model, given = Model(3, vocab=3), (2, 0, 1)
    paths = schedule(np.tile(given, (ROWS, 1)), share, model=model)
    shares = np.zeros((3, 3))
    np.add.at(shares, (paths[:, 1], paths[:, 2]), 1 / ROWS)

    expected = np.zeros((3, 3))
    for second, third in np.ndindex(3, 3):
        probability, state = 1.0, 8
        for before, after, true in ((given[0], second, given[1]), (second, third, given[2])):
            state = (state * 3 + before + 1) % len(model.logits)
            own = np.exp(model.logits[state]) / np.exp(model.logits[state]).sum()
            probability *= share * own[after] + (1 - share) * (after == true)
        expected[second, third] = probability
    assert (paths[:, 0] == given[0]).all()
    assert (np.abs(shares - expected) <= 4 * np.sqrt(expected * (1 - expected) / ROWS)).all()


def test_a_row_draws_by_its_position_in_the_global_batch():
    inputs = np.random.default_rng(0).integers(4, size=(8, 6))
    whole = schedule(inputs, 0.6)
    part = schedule(inputs[2::3], 0.6, rows=jnp.arange(2, 8, 3))
    np.testing.assert_array_equal(part, whole[2::3])
    assert len(np.unique(schedule(np.ones((8, 6), int), 1.0), axis=0)) > 1


def test_no_gradient_flows_through_the_draws():
    """The gradient is that of the loss on the drawn inputs as if they were given."""
    inputs = jnp.array([[0, 2, 1, 2], [1, 1, 0, 2]])
    table = jax.random.normal(jax.random.key(11), (3, 3))

    def drawn(table):
        def next_token(carry, token):
            carry = carry + table[token].sum(-1)
            return carry, table[token] * carry[:, None]

        return scheduled_inputs(
            next_token, jnp.ones(2), inputs, jax.random.key(11), share=0.5, rows=jnp.arange(2)
        )

    def loss(table, chosen):
        return jax.nn.logsumexp(table[chosen], axis=-1).sum()

    chosen = drawn(table)
    assert (chosen != inputs).any()
    expected = jax.grad(loss)(table, chosen)
    found = jax.jit(jax.grad(lambda table: loss(table, drawn(table))))(table)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("share", [-0.1, 1.5, 2])
def test_a_share_is_a_probability(share):
    model, inputs = Model(3, vocab=4), jnp.ones((1, 3), jnp.int32)
    with pytest.raises(InputError, match=f"share {share} of drawn inputs is not a probability"):
        scheduled_inputs(
            model.next_token,
            model.start(jnp.array([8])),
            inputs,
            jax.random.key(11),
            share=share,
            rows=jnp.arange(1),
        )
