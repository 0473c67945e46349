"""The metrics of classifiers equal scikit-learn and hand-worked numbers."""

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from dlcore.metrics import calibration, class_scores, classification

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(40, 12)).astype(np.float32)
LABELS = RNG.integers(0, 12, 40)
WEIGHTS = (np.arange(40) < 33).astype(np.float32)


def test_accuracies_are_scikit_learns():
    means = classification(jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.asarray(WEIGHTS))
    every = np.arange(12)
    for k, name in ((1, "accuracy"), (5, "top_5_accuracy")):
        expected = sklearn.metrics.top_k_accuracy_score(
            LABELS, LOGITS, k=k, labels=every, sample_weight=WEIGHTS
        )
        np.testing.assert_allclose(means[name].compute(), expected, rtol=1e-6)
        assert means[name].weight == 33
    log_p = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
    loss = -(log_p[np.arange(40), LABELS] * WEIGHTS).sum() / 33
    np.testing.assert_allclose(means["loss"].compute(), loss, rtol=1e-5)


def test_shares_of_classes():
    """One-hot probabilities give the results of classes; the loss is linear in probabilities."""
    weights, one_hot = jnp.asarray(WEIGHTS), np.eye(12, dtype=np.float32)
    by_class = classification(jnp.asarray(LOGITS), jnp.asarray(LABELS), weights)
    by_share = classification(jnp.asarray(LOGITS), jnp.asarray(one_hot[LABELS]), weights)
    assert all(by_class[name].total == by_share[name].total for name in by_class)
    other = np.roll(LABELS, 1)
    mixed = classification(
        jnp.asarray(LOGITS), jnp.asarray(0.7 * one_hot[LABELS] + 0.3 * one_hot[other]), weights
    )
    second = classification(jnp.asarray(LOGITS), jnp.asarray(other), weights)
    expected = 0.7 * by_class["loss"].total + 0.3 * second["loss"].total
    np.testing.assert_allclose(mixed["loss"].total, expected, rtol=1e-5)
    assert mixed["accuracy"].total == by_class["accuracy"].total


def test_few_classes_have_no_top_5():
    means = classification(jnp.zeros((2, 10)), jnp.array([0, 1]), jnp.ones(2))
    assert set(means) == {"loss", "accuracy"}


def test_calibration_by_hand():
    """Two bins: (0, 1/2] has one wrong guess at 0.5; (1/2, 1] has 0.6 right, 0.8 wrong, 1 right."""
    probabilities = np.array([[0.5, 0.5], [0.6, 0.4], [0.2, 0.8], [0.0, 1.0]])
    got = calibration(probabilities, np.array([1, 0, 0, 1]), bins=2)
    assert got.counts.tolist() == [1, 3]
    np.testing.assert_allclose(got.confidence, [0.5, 0.8])
    np.testing.assert_allclose(got.accuracy, [0, 2 / 3])
    np.testing.assert_allclose(got.error, (0.5 + 3 * (0.8 - 2 / 3)) / 4)


def test_a_perfectly_calibrated_classifier():
    rng = np.random.default_rng(1)
    sure = rng.uniform(0.5, 1, 100_000)
    labels = (rng.random(100_000) > sure).astype(int)
    got = calibration(np.stack([sure, 1 - sure], 1), labels)
    assert got.error < 0.01
    assert np.isnan(got.confidence[:7]).all() and got.counts.sum() == 100_000
    # The error of a classifier that is always sure is its share of mistakes.
    certain = np.tile([1.0, 0.0], (100_000, 1))
    np.testing.assert_allclose(calibration(certain, labels).error, labels.mean(), rtol=1e-9)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_class_scores_are_scikit_learns():
    predictions = np.where(LABELS == 3, 4, LOGITS.argmax(1))
    predictions[predictions == 5] = 4
    matrix = sklearn.metrics.confusion_matrix(LABELS, predictions, labels=np.arange(12))
    got = class_scores(matrix)
    precision, recall, f1, examples = sklearn.metrics.precision_recall_fscore_support(
        LABELS, predictions, labels=np.arange(12), zero_division=np.nan
    )
    np.testing.assert_array_equal(got.examples, examples)
    np.testing.assert_allclose(got.precision, precision)
    np.testing.assert_allclose(got.recall, recall)
    np.testing.assert_allclose(got.f1, f1)
    assert np.isnan(got.precision[5])
