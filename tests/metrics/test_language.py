"""Perplexities by the definition: the inverse geometric mean of the probabilities, per unit."""

import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.metrics import language_scores


@pytest.mark.parametrize("vocab_size", [2, 65, 10_000])
def test_a_uniform_model_has_the_vocabulary_size_per_token(vocab_size):
    scores = language_scores(np.log(vocab_size), tokens=17)
    assert scores == {"perplexity_per_token": pytest.approx(vocab_size, rel=1e-14)}


def test_each_unit_has_its_own_score():
    probabilities = np.array([0.5, 0.1, 0.02, 0.3, 0.25, 0.9])  # Six tokens, two words, 11 letters.
    scores = language_scores(-np.log(probabilities).mean(), tokens=6, words=2, characters=11)
    product = probabilities.prod()
    assert scores == {
        "perplexity_per_token": pytest.approx(product ** (-1 / 6)),
        "perplexity_per_word": pytest.approx(product ** (-1 / 2)),
        "bits_per_character": pytest.approx(-np.log2(product) / 11),
    }


def test_an_impossible_text_is_infinite_and_a_hopeless_model_does_not_overflow():
    assert language_scores(np.inf, tokens=3, words=2, characters=9) == {
        "perplexity_per_token": np.inf,
        "perplexity_per_word": np.inf,
        "bits_per_character": np.inf,
    }
    scores = language_scores(1e4, tokens=3, characters=3)
    assert scores["perplexity_per_token"] == np.inf
    assert scores["bits_per_character"] == pytest.approx(1e4 / np.log(2))


@pytest.mark.parametrize("unit", ["tokens", "words", "characters"])
def test_a_text_without_a_unit_has_no_score(unit):
    with pytest.raises(InputError, match=f"the evaluated text has 0 {unit}; give a longer one"):
        language_scores(1.0, **{"tokens": 3, unit: 0})
