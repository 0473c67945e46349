"""The metrics of several labels equal scikit-learn's."""

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from dlcore.metrics import average_precision, label_class_scores, label_scores
from dlcore.train import evaluate

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(60, 5)).astype(np.float32).round(1)  # with equal scores
LABELS = (RNG.random((60, 5)) < 0.3).astype(np.float32)
LABELS[:, 4] = 0  # a class that is never there
LABELS[7:9] = 0
LOGITS[7] = -1
PROBABILITIES = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_scores_at_a_threshold_are_scikit_learns(threshold):
    """In batches, the last of which is padded with rows that are all wrong."""
    padded = [np.concatenate([x, y]) for x, y in ((LOGITS, LOGITS[:4] + 9), (LABELS, LABELS[:4]))]
    weight = np.float32([1] * 60 + [0] * 4)
    batches = [
        tuple(x[start : start + 16] for x in (*padded, weight)) for start in range(0, 64, 16)
    ]
    got = evaluate(
        lambda state, batch: (label_scores(*map(jnp.asarray, batch), threshold=threshold), None),
        None,
        batches,
    )
    found, there = PROBABILITIES > threshold, LABELS > 0
    for average in ("micro", "macro"):
        expected = sklearn.metrics.f1_score(there, found, average=average, zero_division=np.nan)
        assert got[f"{average}_f1"] == pytest.approx(expected, rel=1e-6)
    assert got["exact_match"] == pytest.approx(sklearn.metrics.accuracy_score(there, found))
    assert 0 < got["exact_match"] < 1


def test_a_class_without_examples_and_predictions_counts_not():
    logits, labels = jnp.array([[1.0, -1], [1, -1]]), jnp.array([[1, 0], [0, 0]])
    got = evaluate(
        lambda state, batch: (label_scores(logits, labels, jnp.ones(2)), None), None, [{}]
    )
    assert got["macro_f1"] == pytest.approx(2 / 3)


def test_scores_of_classes_are_scikit_learns():
    found = PROBABILITIES > 0.6
    found[:, 4] = False
    got = label_class_scores(np.where(found, 0.9, 0.1), LABELS, threshold=0.6)
    precision, recall, f1, examples = sklearn.metrics.precision_recall_fscore_support(
        LABELS > 0, found, zero_division=np.nan
    )
    np.testing.assert_array_equal(got.examples, examples)
    for mine, expected in ((got.precision, precision), (got.recall, recall), (got.f1, f1)):
        np.testing.assert_allclose(mine, expected)


def test_average_precision_is_scikit_learns():
    got = average_precision(PROBABILITIES, LABELS)
    expected = [
        sklearn.metrics.average_precision_score(LABELS[:, k], PROBABILITIES[:, k]) for k in range(4)
    ]
    np.testing.assert_allclose(got[:4], expected, rtol=1e-12)
    assert np.isnan(got[4]) and len(got) == 5
