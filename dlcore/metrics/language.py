"""The scores of language models, named by their units."""

import numpy as np

from dlcore.errors import InputError


def language_scores(
    nats_per_token: float,
    *,
    tokens: int,
    words: int | None = None,
    characters: int | None = None,
) -> dict[str, float]:
    """Converts the mean negative log-likelihood of a text to perplexities and bits per character.

    A perplexity is exp of the mean negative log-likelihood over some unit, so it is meaningless
    unless the unit is named; a model that is uniform over V tokens has V per token. Perplexities
    per token can only be compared for models with the same vocabulary. Perplexities per word and
    bits per character can be compared across vocabularies too, as long as every model must spell
    out the whole text: "<unk>" counts here as a token like any other, and a smaller vocabulary has
    more of these, which are easy to predict.

    Args:
        nats_per_token: the mean negative log-likelihood of the text's tokens, in nats.
        tokens: the number of tokens of the text, including "<unk>" and "<eos>".
        words: the number of words of the same text; None where it is unknown.
        characters: the number of characters of the text; None where it is unknown.

    Returns:
        "perplexity_per_token", and where their counts are known "perplexity_per_word" and
        "bits_per_character". They are infinite where the text is impossible or float64 overflows.

    Raises:
        InputError: when a count is not positive.

    >>> language_scores(np.log(8), tokens=10, characters=20)["bits_per_character"]
    1.5
    """
    counts = {"tokens": tokens, "words": words, "characters": characters}
    for unit, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"the evaluated text has {count} {unit}; give a longer one")
    nats_per_token = float(nats_per_token)
    nats = nats_per_token * tokens
    with np.errstate(over="ignore"):
        scores = {"perplexity_per_token": float(np.exp(nats_per_token))}
        if words is not None:
            scores["perplexity_per_word"] = float(np.exp(nats / words))
    if characters is not None:
        scores["bits_per_character"] = nats / float(np.log(2)) / characters
    return scores
