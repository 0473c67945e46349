import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.metrics import SPAN_FORMS, convert_spans, f1, span_scheme, span_scores

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


@pytest.mark.parametrize(
    ("names", "scheme"),
    [
        (NAMES, "IOB"),
        (("O", "I-PER"), "IOB"),
        (("I-PER", "E-PER", "O"), "IOE"),
        (("O", "B-PER", "E-PER", "S-PER", "I-PER"), "BIOES"),
        (("O", "S-PER"), "BIOES"),
        (("O", "B-A", "L-A", "U-A", "I-B"), "BILOU"),
        (("O", "B-A", "M-A", "E-A", "W-A"), "BMES"),
        (("B", "M", "E", "S"), "BMES"),
        (("B", "I", "O"), "IOB"),
        (("O", "B-PER", "I-PER", "X"), "IOB"),
        (("NOUN", "VERB"), None),
        (("O", "X"), None),
        (("S-BAR", "E-X"), None),
        (("B", "C", "D"), None),
    ],
)
def test_which_tags_mark_spans(names, scheme):
    assert span_scheme(names) == scheme


def written(spans, length, scheme):
    """Writes spans (first, last, type) as the tags of a scheme."""
    single, first, middle, last = {
        "IOB1": "IIII", "IOB": "BBII", "IOE": "EIIE", "BIOES": "SBIE", "BILOU": "UBIL",
        "BMES": "SBME", "BMEWO": "WBME",
    }[scheme]  # fmt: skip
    tags = ["O"] * length
    for start, end, kind in spans:
        letters = single if start == end else first + middle * (end - start - 1) + last
        tags[start : end + 1] = [f"{letter}-{kind}" for letter in letters]
        if scheme == "IOB1" and start and tags[start - 1][2:] == kind:
            tags[start] = f"B-{kind}"
    return tags


@pytest.mark.parametrize("scheme", ["IOB1", "IOB", "IOE", "BIOES", "BILOU", "BMES", "BMEWO"])
def test_all_schemes_give_the_scores_of_the_same_spans(scheme):
    true = [(0, 0, "PER"), (1, 3, "PER"), (4, 5, "LOC"), (7, 7, "LOC")]
    found = [(0, 0, "PER"), (1, 2, "PER"), (4, 5, "LOC"), (6, 6, "PER"), (7, 7, "PER")]
    rows = [written(spans, 8, scheme) for spans in (found, true)]
    names = sorted({name for row in rows for name in row})
    predicted, tags = (jnp.array([[names.index(name) for name in row]]) for row in rows)
    detected = span_scheme(names)
    assert detected == {"IOB1": "IOB", "BMEWO": "BMES"}.get(scheme, scheme)
    scores = span_scores(predicted, tags, jnp.ones((1, 8), bool), names, detected)
    assert float(scores["span_precision"].weight) == 5
    assert float(scores["span_recall"].weight) == 4
    assert float(scores["span_recall"].total) == 2


def test_a_single_token_is_not_the_end_of_a_longer_span():
    names = ("O", "B-PER", "I-PER", "E-PER", "S-PER")
    tags, found = jnp.array([[1, 2, 3, 0]]), jnp.array([[1, 2, 4, 0]])
    scores = span_scores(found, tags, jnp.ones((1, 4), bool), names, "BIOES")
    assert {name: float(mean.total) for name, mean in scores.items()} == {
        "span_precision": 0,
        "span_recall": 0,
    }
    assert float(scores["span_precision"].weight) == 2


def test_words_by_bare_letters():
    names = ("B", "M", "E", "S")
    tags, found = jnp.array([[0, 1, 2, 3, 0, 2]]), jnp.array([[0, 1, 2, 3, 3, 3]])
    scores = span_scores(found, tags, jnp.ones((1, 6), bool), names, "BMES")
    assert float(scores["span_recall"].compute()) == pytest.approx(2 / 3)
    assert float(scores["span_precision"].compute()) == 0.5


def in_form(tokens, form):
    """The tags of spans (first, last, type), by the definitions of the forms, from nested ifs."""
    length, spans_of = tokens
    tags = ["O"] * length
    for first, last, kind in spans_of:
        for place in range(first, last + 1):
            if form == "IOB2":
                letter = "B" if place == first else "I"
            elif form == "IOB1":
                touches = any(end == first - 1 and k == kind for _, end, k in spans_of)
                letter = "B" if place == first and touches else "I"
            elif form == "IOE2":
                letter = "E" if place == last else "I"
            elif form == "IOE1":
                touches = any(begin == last + 1 and k == kind for begin, _, k in spans_of)
                letter = "E" if place == last and touches else "I"
            else:
                single, begin, inside, end = {
                    "BIOES": "SBIE", "BILOU": "UBIL", "BMES": "SBME",
                }[form]  # fmt: skip
                if first == last:
                    letter = single
                else:
                    letter = begin if place == first else end if place == last else inside
            tags[place] = f"{letter}-{kind}"
    return tags


@pytest.mark.parametrize("source", SPAN_FORMS)
@pytest.mark.parametrize("form", SPAN_FORMS)
def test_spans_of_every_short_sentence_in_all_forms(source, form):
    for names in itertools.product(NAMES, repeat=4):
        tokens = (4, spans(names))
        given = in_form(tokens, source)
        assert convert_spans(given, SPAN_FORMS[source], form) == in_form(tokens, form)


def test_tags_without_types_and_of_no_scheme():
    assert convert_spans("B M E S".split(), "BMES", "IOB2") == "B I I B".split()
    assert convert_spans("B-X I-X DATE O".split(), "IOB", "BILOU") == "B-X L-X DATE O".split()
    assert convert_spans([], "IOB", "IOB1") == []
    # A span that BIOES does not end is read to where it must end.
    assert convert_spans("B-X B-X O I-X".split(), "BIOES", "BIOES") == "S-X S-X O S-X".split()
