"""Classifies texts without the order of their words. Shapes: V words, K classes."""

from collections.abc import Sequence

import numpy as np


class BagOfWords:
    """A naive Bayes classifier on word counts, smoothed by one (Wang & Manning 2012, section 2.1).

    Args:
        texts: the ids of the words of each text to learn from, from 0 to V - 1.
        labels: the class of each, from 0 to K - 1.
        words: V.
        classes: K.
    """

    def __init__(
        self, texts: Sequence[np.ndarray], labels: np.ndarray, *, words: int, classes: int
    ):
        counts = np.ones((classes, words))
        for text, label in zip(texts, labels, strict=True):
            np.add.at(counts[label], text, 1)
        self._words = np.log(counts / counts.sum(axis=1, keepdims=True))
        shares = np.bincount(labels, minlength=classes) / len(labels)
        with np.errstate(divide="ignore"):
            self._classes = np.log(shares)  # a class that was not there is never found

    def log_probabilities(self, text: np.ndarray) -> np.ndarray:
        """Returns log P(class, words) of a text, [K]."""
        found: np.ndarray = self._classes + self._words[:, text].sum(axis=1)
        return found

    def __call__(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the likeliest class of each text."""
        return np.array([self.log_probabilities(text).argmax() for text in texts], np.int32)
