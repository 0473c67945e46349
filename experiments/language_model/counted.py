"""The n-gram model of a language model's tokens: a baseline, or all there is (--model=ngram)."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from dlcore.data.text import Corpus, Vocabulary
from dlcore.errors import InputError
from dlcore.metrics import language_scores
from dlcore.models.text import NGram, write_arpa

Ids = dict[str, np.ndarray]  # the tokens of "train", "valid" and "test"


@dataclasses.dataclass(frozen=True)
class Counted:
    """An n-gram model, counted on the training text.

    Attributes:
        name: of the model, such as "kneser_ney 5-gram".
        model: the model.
        scores: its scores on the test text.
    """

    name: str
    model: NGram
    scores: dict[str, float]

    def describe(self) -> str:
        """Returns the scores in one line."""
        shown = ", ".join(f"{name} {value:.4g}" for name, value in self.scores.items())
        return f"{self.name}: test {shown}"

    def write(self, path: str, vocabulary: Vocabulary) -> None:
        """Writes the model in the ARPA format, its words spelt as in the vocabulary.

        Raises:
            InputError: for a model or words that the format cannot hold, and when the file cannot
                be written.
        """
        try:
            write_arpa(self.model, vocabulary.tokens, pathlib.Path(path))
        except OSError as error:
            raise InputError(
                f"cannot write --arpa={path}: {error.strerror}; choose another place"
            ) from None


def count(config: Any, vocabulary: Vocabulary, corpus: Corpus, ids: Ids) -> Counted:
    """Counts the n-grams of the training text, and scores the test text."""
    model = NGram.count(
        ids["train"],
        order=config.order,
        vocab_size=len(vocabulary),
        smoothing=config.smoothing,
        k=config.add_k,
    )
    nats = -float(model.log_probs(ids["test"]).mean())
    found = {"loss": nats, **scores(nats, vocabulary, corpus, ids, "test")}
    return Counted(f"{config.smoothing} {config.order}-gram", model, found)


def scores(
    nats: float, vocabulary: Vocabulary, corpus: Corpus, ids: Ids, split: str
) -> dict[str, float]:
    """Returns the scores of `nats` per token on a split.

    Bits per character only where every character is spelt out, and perplexities per word only
    where tokens are not words.
    """
    text = getattr(corpus, split)
    spelt = not vocabulary.separator
    return language_scores(
        nats,
        tokens=len(ids[split]),
        words=len(text.split()) if vocabulary.level == "bpe" else None,
        characters=len(text) if spelt else None,
    )
