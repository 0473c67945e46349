"""Naive Bayes against that of scikit-learn."""

import numpy as np
from sklearn.naive_bayes import MultinomialNB

from dlcore.evaluation import BagOfWords


def test_it_is_naive_bayes():
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 7, rng.integers(1, 9)) for _ in range(60)]
    labels = rng.integers(0, 3, 60)
    counts = np.array([np.bincount(text, minlength=7) for text in texts])
    theirs = MultinomialNB(alpha=1).fit(counts[:40], labels[:40])
    ours = BagOfWords(texts[:40], labels[:40], words=7, classes=3)
    np.testing.assert_array_equal(ours(texts[40:]), theirs.predict(counts[40:]))
    logs = np.array([ours.log_probabilities(text) for text in texts[40:]])
    logs -= np.logaddexp.reduce(logs, axis=1, keepdims=True)
    np.testing.assert_allclose(logs, theirs.predict_log_proba(counts[40:]), atol=1e-9)
