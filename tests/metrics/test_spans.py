import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.metrics import f1, marks_spans, span_scores

NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def spans(names):
    """Returns the spans of one sentence as (first, last, type), token by token."""
    found, start, kind = [], None, None
    for place, name in enumerate([*names, "O"]):
        prefix, _, this = name.partition("-")
        if start is not None and (prefix != "I" or this != kind):
            found.append((start, place - 1, kind))
            start = None
        if prefix == "B" or (prefix == "I" and start is None):
            start, kind = place, this
    return set(found)


def test_every_short_sentence_against_the_definition():
    sentences = np.array(list(itertools.product(range(5), repeat=4)))
    draw = np.random.default_rng(0)
    guesses = sentences[draw.permutation(len(sentences))]
    lengths = draw.integers(1, 5, len(sentences))
    mask = np.arange(4) < lengths[:, None]
    scores = jax.jit(lambda *args: span_scores(*args, NAMES))(guesses, sentences, mask)
    right = found = there = 0
    for guess, tags, length in zip(guesses, sentences, lengths, strict=True):
        ours = spans([NAMES[tag] for tag in guess[:length]])
        true = spans([NAMES[tag] for tag in tags[:length]])
        right, found, there = right + len(ours & true), found + len(ours), there + len(true)
    assert 0 < right < found
    assert float(scores["span_precision"].total) == float(scores["span_recall"].total) == right
    assert float(scores["span_precision"].weight) == found
    assert float(scores["span_recall"].weight) == there


def test_a_sentence_by_hand():
    tags = jnp.array([[1, 2, 0, 3, 4, 4]])
    found = jnp.array([[1, 2, 0, 3, 4, 0]])  # the second span ends too early
    scores = span_scores(found, tags, jnp.ones((1, 6), bool), NAMES)
    assert {name: float(mean.compute()) for name, mean in scores.items()} == {
        "span_precision": 0.5,
        "span_recall": 0.5,
    }


@pytest.mark.parametrize(
    ("precision", "recall", "value"),
    [(1.0, 0.5, 2 / 3), (0.0, 0.0, 0.0), (float("nan"), 0.0, 0.0)],
)
def test_f1(precision, recall, value):
    assert f1(precision, recall) == pytest.approx(value)


def test_which_tags_mark_spans():
    assert marks_spans(NAMES) and not marks_spans(("NOUN", "VERB"))
