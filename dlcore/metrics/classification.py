"""The metrics of a classifier. Shapes: B examples, N all of them, K classes, M bins."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore.types import Mean

_BEST = 5
_FEW_CLASSES = 10  # of which five guesses say little


def classification(
    logits: jax.Array, labels: jax.Array, weights: jax.Array, *, label_smoothing: float = 0.0
) -> dict[str, Mean]:
    """The mean cross-entropy, in nats, as "loss" and the share of right answers as "accuracy".

    With more than ten classes also the share of answers that are right with five guesses, as
    "top_5_accuracy".

    Args:
        logits: (B, K); computed with in float32 at least.
        labels: (B,) classes in 0..K-1, or (B, K) shares of them, of which the largest is the class.
        weights: (B,), 0 for rows that only pad.
        label_smoothing: the share of the target that is spread evenly over all classes
            (Szegedy et al. 2016, section 7).
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    shares = jax.nn.one_hot(labels, logits.shape[-1]) if labels.ndim == 1 else labels
    classes = labels if labels.ndim == 1 else labels.argmax(-1)
    targets = optax.smooth_labels(shares, label_smoothing)
    means = {
        "loss": Mean.of(optax.softmax_cross_entropy(logits, targets), weights),
        "accuracy": Mean.of((logits.argmax(-1) == classes).astype(jnp.float32), weights),
    }
    if logits.shape[-1] > _FEW_CLASSES:
        best = jax.lax.top_k(logits, _BEST)[1]
        right = (best == classes[:, None]).any(-1).astype(jnp.float32)
        means["top_5_accuracy"] = Mean.of(right, weights)
    return means


class Calibration(NamedTuple):
    """How far a classifier can be believed (Guo et al. 2017, equations 2 and 3).

    Attributes:
        counts: (M,) predictions in each bin of confidence, int.
        confidence: (M,) the mean probability that they were given; NaN where there are none.
        accuracy: (M,) the share of them that is right; NaN where there are none.
        error: the mean distance of the two over all predictions, the expected calibration error.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def calibration(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> Calibration:
    """Confidence and accuracy of predictions in bins of equal width.

    Args:
        probabilities: (N, K).
        labels: (N,) classes.
        bins: M; a bin has its upper end, not its lower one.
    """
    sure = np.asarray(probabilities, np.float64).max(axis=1)
    right = np.asarray(probabilities).argmax(axis=1) == labels
    number = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    confidence, accuracy = (
        np.divide(
            np.bincount(number, values, bins), counts, out=np.full(bins, np.nan), where=counts > 0
        )
        for values in (sure, right)
    )
    gaps = np.abs(np.nan_to_num(confidence - accuracy))
    return Calibration(counts, confidence, accuracy, float(gaps @ counts / max(counts.sum(), 1)))


class ClassScores(NamedTuple):
    """How well each class is found. All are (K,), and NaN where they would divide by 0.

    Attributes:
        examples: how many are of the class, int.
        precision: the share of the predictions of it that are right.
        recall: the share of its examples that are found.
        f1: the harmonic mean of both.
    """

    examples: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def class_scores(matrix: np.ndarray) -> ClassScores:
    """The scores of each class.

    Args:
        matrix: (K, K) counts, true class by row, predicted class by column.
    """
    right, true, predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)

    def share(of: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(of, whole, out=np.full(len(matrix), np.nan), where=whole > 0)

    f1 = share(2 * right, true + predicted)
    return ClassScores(true, share(right, predicted), share(right, true), f1)
