"""Ensembles, and the decoders over models of other rooms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import plain_search
import pytest
from plain_search import END, FIRST, Model

from dlcore.decode import beam_search, ensemble, greedy, score_sequences
from dlcore.errors import InputError
from dlcore.losses.output import output_layer
from dlcore.models.text import LanguageModel, NGram
from dlcore.nn.recurrent import LSTM, RecurrentStack


def probabilities(logits):
    return np.exp([plain_search.log_softmax(row) for row in np.asarray(logits)])


def test_an_ensemble_predicts_the_arithmetic_mean():
    models = [Model(seed, vocab=5, source=1 + seed) for seed in range(3)]
    next_token = ensemble([model.next_token for model in models])
    carries = tuple(model.start(jnp.array([3, 50])) for model in models)
    expected = []
    for token in (jnp.array([0, 4]), jnp.array([2, 1])):
        single = [
            model.next_token(carry, token) for model, carry in zip(models, carries, strict=True)
        ]
        carries, log_probs = next_token(carries, token)
        expected = np.mean([probabilities(logits) for _, logits in single], axis=0)
        np.testing.assert_allclose(np.exp(log_probs), expected, rtol=1e-5)
        jax.tree.map(np.testing.assert_array_equal, carries, tuple(carry for carry, _ in single))


def test_two_of_the_same_are_one():
    model, first = Model(1, vocab=5), jnp.full(4, FIRST)
    start = model.start(jnp.arange(4))
    settings = {"end": END, "width": 3, "steps": 6}
    both = ensemble([model.next_token] * 2)
    found = beam_search(both, (start, start), first, **settings)
    expected = beam_search(model.next_token, start, first, **settings)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)


def test_an_ensemble_of_one_is_the_model():
    model, token = Model(1, vocab=5), jnp.array([0, 4])
    start = model.start(jnp.array([3, 50]))
    carry, logits = model.next_token(start, token)
    found = ensemble([model.next_token])((start,), token)
    jax.tree.map(np.testing.assert_array_equal, found, ((carry,), logits))


def test_an_ensemble_of_none():
    with pytest.raises(InputError, match="an ensemble of 0 models predicts nothing"):
        ensemble([])


def test_beam_search_over_an_n_gram_model():
    text = np.random.default_rng(0).choice(4, size=300, p=[0.4, 0.2, 0.3, 0.1])
    model = NGram.count(text, order=3, vocab_size=4)
    steps = 4
    found = beam_search(
        model.next_token,
        model.initial_carry(1),
        jnp.array([FIRST]),
        end=END,
        width=4**steps,
        n_best=5,
        steps=steps,
    )
    every = [
        (*(int(digit) for digit in np.base_repr(number, 4).zfill(length - 1)[: length - 1]), END)
        for length in range(1, steps + 1)
        for number in range(4 ** (length - 1))
    ]
    log_probs = {
        tokens: model.log_probs(np.array(tokens), context=[FIRST]).sum()
        for tokens in every
        if END not in tokens[:-1]
    }
    best = sorted(log_probs, key=lambda tokens: -log_probs[tokens])[:5]
    for place, tokens in enumerate(best):
        assert found.tokens[0, place, : len(tokens)].tolist() == list(tokens)
        np.testing.assert_allclose(found.log_probs[0, place], log_probs[tokens], rtol=1e-5)


def test_beam_search_over_a_recurrent_language_model():
    vocab, batch, steps = 9, 3, 6
    body = RecurrentStack((LSTM(8),))
    model = LanguageModel(output_layer("full", np.ones(vocab)), body, features=5)
    first = jnp.array([FIRST, 4, 7])
    variables = jax.jit(model.init)(jax.random.key(0), first[:, None])
    # Larger weights make the tokens before matter.
    variables = jax.tree.map(lambda x: 4 * x, variables)
    next_token = functools.partial(model.apply, variables, method="next_token")
    carry = model.initial_carry(batch)
    settings = {"end": END, "steps": steps, "min_length": 3}
    found = beam_search(next_token, carry, first, width=4, n_best=4, **settings)
    tokens, lengths, log_probs = greedy(next_token, carry, first, **settings)
    one = beam_search(next_token, carry, first, width=1, **settings)
    np.testing.assert_array_equal(one.tokens[:, 0], tokens)
    np.testing.assert_array_equal(one.log_probs[:, 0], log_probs)
    assert (found.log_probs[:, 0] >= log_probs).all()

    # Teacher forcing reads the whole sequences at once.
    apply = jax.jit(model.apply)
    score = jax.jit(functools.partial(score_sequences, next_token))
    for place in range(4):
        inputs = jnp.concatenate([first[:, None], found.tokens[:, place, :-1]], axis=1)
        _, readout, _ = apply(variables, inputs)
        flat = readout._replace(hidden=readout.hidden.reshape(batch * steps, -1))
        logs = model.output.log_probs(flat).reshape(batch, steps, vocab)
        logs = jnp.take_along_axis(logs, found.tokens[:, place, :, None], axis=-1)[..., 0]
        inside = jnp.arange(steps)[None] < found.lengths[:, place, None]
        expected = jnp.where(inside, logs, 0).sum(1)
        np.testing.assert_allclose(found.log_probs[:, place], expected, rtol=1e-5)
        forced, _ = score(carry, first, found.tokens[:, place], found.lengths[:, place])
        np.testing.assert_allclose(forced, expected, rtol=1e-5)
