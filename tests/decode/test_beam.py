"""Beam search equals exhaustive search, plain NumPy and hand-made cases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import plain_search
import pytest
from plain_search import CONSTRAINTS, END, FIRST, OBJECTIVES, Model, markov, search

from dlcore.decode import Objective, beam_search
from dlcore.errors import InputError

find_beam = functools.partial(search, beam_search)


def sequences(found, row):
    """Returns the hypotheses of a sentence, best first, without the padding."""
    lengths = found.lengths[row]
    return [tuple(t[:n].tolist()) for t, n in zip(found.tokens[row], lengths, strict=True) if n]


def check(found, row, expected, objective):
    """Checks that the hypotheses of a sentence are the expected ones, ordered by score."""
    scores = {one.tokens: plain_search.score(one, **objective) for one in expected}
    log_probs = {one.tokens: one.log_prob for one in expected}
    ranked = sorted(scores, key=lambda tokens: -scores[tokens])
    places = found.scores.shape[1]
    tokens = sequences(found, row)
    count = min(places, len(ranked))
    assert len(tokens) == len(set(tokens)) == count
    assert set(tokens) <= set(scores) and tokens[0] == ranked[0]
    padded = np.full(places, -np.inf)
    padded[:count] = [scores[tokens] for tokens in ranked[:count]]
    np.testing.assert_allclose(found.scores[row], padded, rtol=2e-6, atol=2e-6)
    padded[:count] = [log_probs[one] for one in tokens]
    np.testing.assert_allclose(found.log_probs[row], padded, rtol=2e-6, atol=2e-6)
    after = np.arange(found.tokens.shape[2]) >= found.lengths[row][:, None]
    assert not found.tokens[row][after].any()


# Each case compiles anew, so these are all objectives and all constraints, not all pairs.
CASES = [
    *((objective, CONSTRAINTS[i % 2]) for i, objective in enumerate(OBJECTIVES)),
    *((OBJECTIVES[-1], constraints) for constraints in CONSTRAINTS[2:]),
]


def every_second(cases, first):
    """The cases, of which those between are marked as slow."""
    return pytest.mark.parametrize(
        "objective, constraints",
        [
            pytest.param(*case, marks=[pytest.mark.slow] * (i % 2 != first))
            for i, case in enumerate(cases)
        ],
        ids=str,
    )


@every_second(CASES, 0)
def test_full_width_is_exhaustive_search(objective, constraints):
    model = Model(1, vocab=3)
    found = find_beam(
        model,
        [5, 80],
        width=3**5,
        steps=5,
        n_best=3**5,
        objective=Objective(**objective),
        coverage=model.coverage,
        **constraints,
    )
    for row, sentence in enumerate([5, 80]):
        expected = plain_search.every_sequence(model, sentence, steps=5, **constraints)
        check(found, row, expected, objective)


@pytest.mark.parametrize(
    "vocab, steps",
    [
        (2, 6),
        (3, 1),
        pytest.param(4, 4, marks=pytest.mark.slow),
        (5, 3),
        pytest.param(5, 6, marks=pytest.mark.slow),
    ],
)
def test_full_width_over_other_sizes(vocab, steps):
    model, objective = Model(2, vocab), OBJECTIVES[-2]
    settings = {"objective": Objective(**objective), "coverage": model.coverage}
    width = vocab**steps
    found = find_beam(model, [9], width=width, n_best=width, steps=steps, **settings)
    check(found, 0, plain_search.every_sequence(model, 9, steps=steps), objective)


@every_second(CASES, 1)
def test_small_widths_are_the_plain_search(objective, constraints):
    # A low spread of the logits keeps hypotheses open, so that they compete for the four slots.
    model, sentences = Model(3, vocab=6, spread=0.8), [0, 41, 300, 511]
    found = find_beam(
        model,
        sentences,
        width=4,
        steps=7,
        n_best=3,
        objective=Objective(**objective),
        coverage=model.coverage,
        **constraints,
    )
    for row, sentence in enumerate(sentences):
        expected = plain_search.beam(model, sentence, width=4, steps=7, **constraints)
        check(found, row, expected, objective)


@pytest.mark.parametrize(
    "groups, diversity, objective, constraints",
    [
        pytest.param(2, 0.5, {}, {}, marks=pytest.mark.slow),
        pytest.param(3, 1.0, {"normalise": "average"}, {"min_length": 3}, marks=pytest.mark.slow),
        (6, 0.2, {"normalise": "gnmt", "alpha": 0.9}, {"no_repeat": 2}),
        (2, 0.0, {}, {}),
    ],
)
def test_groups_are_the_plain_diverse_search(groups, diversity, objective, constraints):
    model, sentences = Model(3, vocab=5, spread=0.8), [0, 41, 300, 511]
    settings = {"width": 6, "groups": groups, "diversity": diversity, "steps": 6, **constraints}
    found = find_beam(model, sentences, n_best=5, objective=Objective(**objective), **settings)
    for row, sentence in enumerate(sentences):
        check(found, row, plain_search.diverse_beam(model, sentence, **settings), objective)


def test_diversity_spreads_the_hypotheses_and_groups_without_it_repeat_one_beam():
    model, sentences = Model(3, vocab=5, spread=0.8), range(20)
    settings = {"width": 4, "steps": 6, "n_best": 4, "groups": 2}

    def first_tokens(**more):
        found = find_beam(model, sentences, **settings, **more)
        return [{tokens[0] for tokens in sequences(found, row)} for row in sentences], found

    alike, same = first_tokens(diversity=0.0)
    spread, _ = first_tokens(diversity=100.0)
    assert (same.lengths[:, 2:] == 0).all()  # The second group found what the first one had.
    assert sum(map(len, spread)) > sum(map(len, alike))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"groups": 3}, "3 groups do not divide a beam of width 4"),
        ({"groups": 0}, "0 groups do not divide"),
        ({"groups": 2, "diversity": -1.0}, "diversity -1.0 is not a number of nats"),
    ],
)
def test_groups_that_do_not_fit_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        find_beam(Model(1, vocab=3), [0], width=4, steps=2, **options)


@pytest.mark.parametrize(
    "objective",
    [
        *(pytest.param(one, marks=pytest.mark.slow) for one in OBJECTIVES[:-1:4]),
        OBJECTIVES[-1],
    ],
    ids=str,
)
def test_asking_for_more_never_changes_the_best(objective):
    model, width = Model(6, vocab=7, spread=2.0), 6
    settings = {"objective": Objective(**objective), "coverage": model.coverage}
    whole = find_beam(model, range(20), width=width, steps=9, n_best=width, **settings)
    for n_best in (1, 2, 4):
        found = find_beam(model, range(20), width=width, steps=9, n_best=n_best, **settings)
        for part, of_all in zip(found, whole, strict=True):
            np.testing.assert_array_equal(part, of_all[:, :n_best])


def test_a_batch_is_each_sentence_alone():
    model, sentences = Model(7, vocab=8, spread=2.0), [3, 14, 159, 26]
    settings = {
        "width": 3,
        "n_best": 2,
        "steps": 8,
        "objective": Objective("average", coverage=0.2),
        "coverage": model.coverage,
        "no_repeat": 2,
    }
    together = find_beam(model, sentences, **settings)
    for row, sentence in enumerate(sentences):
        for one, all_of_them in zip(
            find_beam(model, [sentence], **settings), together, strict=True
        ):
            np.testing.assert_array_equal(one[0], all_of_them[row])


@pytest.mark.slow
def test_compiled_is_the_same_as_not_compiled():
    model, sentences = Model(8, vocab=5), [2, 7]
    settings = {"width": 3, "n_best": 3, "steps": 3, "objective": Objective("gnmt"), "no_repeat": 2}
    compiled = find_beam(model, sentences, **settings)
    with jax.disable_jit():
        plain = find_beam(model, sentences, **settings)
    np.testing.assert_array_equal(compiled.tokens, plain.tokens)
    np.testing.assert_allclose(compiled.scores, plain.scores, rtol=1e-6)


def run(table, width, **settings):
    found = beam_search(
        markov(table), (), jnp.array([FIRST]), end=END, width=width, n_best=width, **settings
    )
    return jax.tree.map(np.asarray, found)


# After the start: the end 0.6 or 2; then 0 or the end; then the end almost surely.
LATE = [[0.1, 0.9, 0.0], [0.0, 0.6, 0.4], [0.9, 0.1, 0.0]]


@pytest.mark.parametrize(
    "normalise, best, score",
    [
        pytest.param("none", (1,), np.log(0.6), marks=pytest.mark.slow),
        ("average", (2, 0, 1), np.log(0.4 * 0.9 * 0.9) / 3),
    ],
)
def test_the_first_to_finish_is_not_the_best_when_lengths_are_normalised(normalise, best, score):
    # -0.51 against -1.13 without, -0.38 with normalisation.
    objective = Objective(normalise)
    for n_best in (1, 2):
        found = beam_search(
            markov(LATE),
            (),
            jnp.array([FIRST]),
            end=END,
            width=2,
            steps=3,
            n_best=n_best,
            objective=objective,
        )
        assert sequences(found, 0)[0] == best
        np.testing.assert_allclose(found.scores[0, 0], score, rtol=1e-6)


def test_a_hypothesis_that_ends_keeps_its_place():
    # The end (0.6) takes one of two slots, so of 2 0 (0.36) and 2 1 (0.04) only the first goes on.
    found = run(LATE, width=2, steps=3)
    assert sequences(found, 0) == [(1,), (2, 0, 1)]
    np.testing.assert_allclose(np.exp(found.log_probs[0]), [0.6, 0.324], rtol=1e-6)


def test_among_equals_the_earlier_hypothesis_and_the_lower_token_are_first():
    even = np.full((4, 4), 0.25)
    assert sequences(run(even, width=4, steps=2), 0) == [(1,), (0, 1), (2, 1), (3, 1)]
    assert sequences(run(even, width=3, steps=2), 0) == [(1,), (0, 1), (2, 1)]


def test_places_that_nothing_fills_are_empty():
    # Only two sequences are possible in two steps: the end, or 2 and the end.
    found = run([[0, 1, 0], [0, 0.5, 0.5], [0, 1, 0]], width=4, steps=4)
    assert sequences(found, 0) == [(1,), (2, 1)]
    np.testing.assert_array_equal(found.lengths, [[1, 2, 0, 0]])
    for scores in (found.log_probs, found.scores):
        np.testing.assert_allclose(np.exp(scores), [[0.5, 0.5, 0, 0]], rtol=1e-6)
    assert not found.tokens[0, 2:].any()


def test_what_is_not_a_number_takes_no_place():
    found = run([[np.nan] * 3, [0.5, 0.4, 0.1], [0, 1, 0]], width=3, steps=4)
    assert sequences(found, 0) == [(1,), (2, 1)]


@pytest.mark.parametrize(
    "n_best, objective, calls",
    # Ends of 0.9, 0.09, ... come one a step. By length, 0.01 could still reach log(0.01) / 50 =
    # -0.09 after two steps, above log(0.9) = -0.11, and 0.001 only -0.14 after three.
    [(1, Objective(), 1), (2, Objective(), 2), (1, Objective("average"), 3)],
)
def test_a_search_stops_as_soon_as_nothing_can_be_better(n_best, objective, calls):
    counted = []
    step = markov([[0.1, 0.9]] * 2)

    def next_token(carry, token):
        jax.debug.callback(lambda: counted.append(1))
        return step(carry, token)

    beam_search(
        next_token,
        (),
        jnp.array([FIRST]),
        end=END,
        width=4,
        steps=50,
        n_best=n_best,
        objective=objective,
    )
    jax.effects_barrier()
    assert len(counted) == calls


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"width": 0}, "beam width 0 is not possible; give 1"),
        ({"n_best": 0}, "0 hypotheses cannot come out of a beam of width 2"),
        ({"n_best": 3}, "3 hypotheses cannot come out of a beam of width 2"),
        ({"steps": 0}, "0 decoding steps leave no room"),
        ({"min_length": -1}, "minimum length -1 is not possible in 4"),
        ({"min_length": 5}, "minimum length 5 is not possible in 4 decoding steps; give 0 to 4"),
        ({"no_repeat": 0}, "n-grams of size 0 do not exist"),
        ({"objective": Objective(coverage=0.1)}, "coverage penalty of 0.1 needs the attention"),
    ],
    ids=str,
)
def test_bad_settings(settings, message):
    settings = {"width": 2, "steps": 4, **settings}
    with pytest.raises(InputError, match=message):
        beam_search(markov(LATE), (), jnp.array([FIRST]), end=END, **settings)


def test_programming_errors():
    search = functools.partial(
        beam_search, markov(LATE), first=jnp.array([FIRST]), width=2, steps=2
    )
    with pytest.raises(ValueError, match="end token 3 is not one of the 3"):
        search(carry=(), end=3)
    with pytest.raises(ValueError, match=r"leaf \(2, 4\) of the carry has not leading axis 1"):
        search(carry=jnp.zeros((2, 4)), end=END)
