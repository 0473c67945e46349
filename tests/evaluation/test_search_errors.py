"""Search errors and model errors: planted ones are found, each for what it is."""

import itertools

import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.evaluation import search_errors

RANDOM = np.random.default_rng(0)
END, STEPS, VOCABULARY = 0, 4, 4
REFERENCES = [(a, b, c, END) for a, b, c in itertools.product(range(1, VOCABULARY), repeat=3)]


def analyse(reference, output, *, log_probs=None, same=None):
    """The verdicts on scores; log P is the score where it is not given."""
    log_probs = log_probs or (reference, output)
    return search_errors(
        np.array(reference),
        np.array(output),
        reference_log_probs=np.array(log_probs[0]),
        output_log_probs=np.array(log_probs[1]),
        same=np.zeros(len(reference), bool) if same is None else np.array(same),
    )


def log_prob(model, tokens):
    """log P of a sentence under a table of log P(next | last)."""
    return sum(model[last, token] for last, token in itertools.pairwise((END, *tokens)))


def average(model, tokens):
    return log_prob(model, tokens) / len(tokens)


def best(model, objective):
    """Returns the result of a perfect search."""
    lengths = range(STEPS)
    sentences = (
        (*tokens, END)
        for length in lengths
        for tokens in itertools.product(range(1, VOCABULARY), repeat=length)
    )
    return max(sentences, key=lambda tokens: objective(model, tokens))


def greedy(model):
    """Returns the result of a search of width 1, which ends after three words at the latest."""
    tokens = [END]
    while len(tokens) == 1 or (tokens[-1] != END and len(tokens) < STEPS):
        tokens.append(int(model[tokens[-1]].argmax()))
    return tuple(tokens[1:]) + (END,) * (tokens[-1] != END)


def random_model():
    return np.log(RANDOM.dirichlet(np.ones(VOCABULARY), VOCABULARY))


@pytest.mark.parametrize("objective", [log_prob, average])
def test_planted_faults_of_the_search_are_found(objective):
    """The model likes the reference best of all, and the search has returned another sentence."""
    models = [random_model() for _ in range(60)]
    references = [best(model, objective) for model in models]
    outputs = [greedy(model) for model in models]
    errors = judge(models, references, outputs, objective)
    missed = np.array([a != b for a, b in zip(references, outputs, strict=True)])
    assert 5 < missed.sum() < 60
    np.testing.assert_array_equal(errors.verdicts, np.where(missed, "search", "right"))


@pytest.mark.parametrize("objective", [log_prob, average])
def test_planted_faults_of_the_model_are_found(objective):
    """The search is perfect, and the references are chosen at random."""
    models = [random_model() for _ in range(60)]
    references = [REFERENCES[i] for i in RANDOM.integers(len(REFERENCES), size=60)]
    outputs = [best(model, objective) for model in models]
    errors = judge(models, references, outputs, objective)
    missed = np.array([a != b for a, b in zip(references, outputs, strict=True)])
    assert missed.sum() > 30
    np.testing.assert_array_equal(errors.verdicts, np.where(missed, "model", "right"))


def judge(models, references, outputs, objective):
    def scores(sentences, objective):
        return np.array([objective(*pair) for pair in zip(models, sentences, strict=True)])

    return search_errors(
        scores(references, objective),
        scores(outputs, objective),
        reference_log_probs=scores(references, log_prob),
        output_log_probs=scores(outputs, log_prob),
        same=[a == b for a, b in zip(references, outputs, strict=True)],
    )


def test_the_searched_score_decides_and_log_p_may_disagree():
    """A short output of greater P, which an average of log P would not have preferred."""
    errors = analyse(
        [-0.5, -2.0, -1.0], [-1.0, -1.0, -3.0], log_probs=([-6.0, -4.0, -1.0], [-4.0, -6.0, -3.0])
    )
    assert errors.verdicts.tolist() == ["search", "model", "search"]
    assert errors.log_prob_verdicts.tolist() == ["model", "search", "search"]
    assert errors.disagreements == 2
    assert errors.warning.startswith("warning: log P alone would give another verdict on 2 of 3")


def test_no_warning_where_they_agree():
    errors = analyse([-1.0, -2.0], [-2.0, -1.0])
    assert errors.disagreements == 0 and errors.warning == ""
    assert "warning" not in errors.render()


@pytest.mark.parametrize(
    "reference, output, verdict",
    [
        (-40.0, -40.00003, "model"),
        (-40.0, -40.003, "search"),
        (-0.5, -0.500001, "model"),
        (-0.5, -0.5001, "search"),
        (-np.inf, -3.0, "model"),
        (-3.0, -np.inf, "search"),
        (-np.inf, -np.inf, "model"),
    ],
)
def test_rounding_and_the_impossible(reference, output, verdict):
    assert analyse([reference], [output]).verdicts.tolist() == [verdict]


def test_an_equal_output_is_right_whatever_its_score():
    errors = analyse([-1.0, -2.0], [-2.0, -1.0], same=[True, True])
    assert errors.verdicts.tolist() == ["right", "right"]


def test_shares_and_the_worst():
    errors = analyse(
        [-1.0, -1.0, -5.0, -9.0, -np.inf, -2.0, -7.0, -np.inf],
        [-4.0, -2.0, -1.0, -3.0, -1.0, -2.0, -7.0, -np.inf],
        same=[False] * 5 + [True] * 2 + [False],
    )
    assert errors.shares == {"right": 2 / 8, "search": 2 / 8, "model": 4 / 8}
    assert errors.worst("search") == [0, 1]
    assert errors.worst("model") == [4, 3, 2, 7]
    assert errors.worst("model", 2) == [4, 3]
    assert errors.worst("right") == [6, 5]


def test_the_table():
    errors = analyse([-1.0, -1.0, -1.0, -5.0], [-1.0, -1.0, -4.0, -1.0], same=[1, 1, 0, 0])
    assert errors.render().splitlines() == [
        "verdict   sentences    share  what helps",
        "right             2    50.0%",
        "search            1    25.0%  widen the beam",
        "model             1    25.0%  change the architecture or regularisation, or get more data",
    ]
    warned = analyse([-1.0], [-2.0], log_probs=([-9.0], [-8.0]))
    assert warned.render().splitlines()[-1] == warned.warning


def test_what_cannot_be_judged():
    with pytest.raises(InputError, match="no sentences"):
        analyse([], [])
    with pytest.raises(InputError, match="1 of 2 output_scores are NaN"):
        analyse([-1.0, -1.0], [np.nan, -1.0])
    with pytest.raises(ValueError, match="must all be"):
        analyse([-1.0, -2.0], [-1.0])
