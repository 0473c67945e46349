"""The metrics of a classifier. Shapes: B examples of a batch, N of a split, K classes, M bins."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore.types import Mean, at_least_float32

_BEST = 5
_FEW_CLASSES = 10  # of which five guesses say little


def classification(
    logits: jax.Array, labels: jax.Array, weights: jax.Array, *, label_smoothing: float = 0.0
) -> dict[str, Mean]:
    """Returns the mean cross-entropy in nats as "loss" and the accuracy as "accuracy".

    With more than ten classes it also returns "top_5_accuracy", the share of examples whose class
    is among the five likeliest.

    Args:
        logits: (B, K); the computation is in float32 at least.
        labels: (B,) classes in 0..K-1, or (B, K) probabilities, whose largest is the class.
        weights: (B,), 0 for padding rows.
        label_smoothing: the share of the target that is spread evenly over all classes
            (Szegedy et al. 2016, section 7).

    >>> logits, labels = jnp.array([[0.0, 2.0], [1.0, 0.0]]), jnp.array([1, 1])
    >>> means = classification(logits, labels, jnp.ones(2))
    >>> float(means["accuracy"].compute())
    0.5
    """
    logits = logits.astype(at_least_float32(logits.dtype))
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
    """Confidence and accuracy of a classifier's predictions (Guo et al. 2017, eq. 2 and 3).

    Attributes:
        counts: (M,) the number of predictions in each bin of confidence, int.
        confidence: (M,) their mean confidence; NaN in empty bins.
        accuracy: (M,) the share of right ones among them; NaN in empty bins.
        error: the expected calibration error, the mean distance of confidence and accuracy over all
            predictions.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def calibration(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> Calibration:
    """Compares confidence and accuracy of predictions in bins of equal width.

    Args:
        probabilities: (N, K).
        labels: (N,) classes.
        bins: M; a bin includes its upper end, not its lower one.

    >>> probabilities = np.array([[0.75, 0.25], [0.25, 0.75]])
    >>> calibration(probabilities, np.array([0, 0]), bins=2).error
    0.25
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
    """The scores of each class. All are (K,), and NaN where they would divide by 0.

    Attributes:
        examples: the number of examples of the class, int.
        precision: the share of right ones among the predictions of the class.
        recall: the share of rightly predicted ones among the examples of the class.
        f1: the harmonic mean of precision and recall.
    """

    examples: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def class_scores(matrix: np.ndarray) -> ClassScores:
    """Computes the scores of each class from a confusion matrix.

    Args:
        matrix: (K, K) counts, true class by row, predicted class by column.

    >>> class_scores(np.array([[3, 1], [0, 4]])).recall.tolist()
    [0.75, 1.0]
    """
    return scores_of_counts(np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0))


def scores_of_counts(right: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> ClassScores:
    """Computes the scores of each class from counts, all (K,).

    Args:
        right: the counts of rightly predicted examples.
        true: the counts of examples.
        predicted: the counts of predictions.
    """

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)

    f1 = share(2 * right, true + predicted)
    return ClassScores(true, share(right, predicted), share(right, true), f1)
