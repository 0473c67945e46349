"""The metrics of examples that have any number of labels. Shapes: B or N examples, K classes."""

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.metrics.classification import ClassScores, scores_of_counts
from dlcore.types import Mean, Metrics, at_least_float32


def label_scores(
    logits: jax.Array, labels: jax.Array, weights: jax.Array, *, threshold: float = 0.5
) -> Metrics:
    """Returns how well the labels of examples are found at a threshold.

    Args:
        logits: (B, K), whose sigmoid is the probability of a label.
        labels: (B, K); those above 1/2 count as present.
        weights: (B,), 0 for padding rows.
        threshold: the probability above which a label is predicted.

    Returns:
        "micro_f1", over all labels together; "macro_f1", a mean of vectors (K,), the F1 of each
        class, which `evaluate` averages over the classes that have examples or predictions; and
        "exact_match", the share of examples with exactly the right labels (subset accuracy).

    >>> logits, labels = jnp.array([[2.0, -1], [1, 1]]), jnp.array([[1, 0], [1, 0]])
    >>> scores = label_scores(logits, labels, jnp.ones(2))
    >>> scores["macro_f1"].compute().tolist(), float(scores["micro_f1"].compute())
    ([1.0, 0.0], 0.800000011920929)
    """
    logits = logits.astype(at_least_float32(logits.dtype))
    found, there = jax.nn.sigmoid(logits) > threshold, labels.astype(logits.dtype) > 0.5
    counted = (weights > 0)[:, None]

    def count(chosen: jax.Array) -> jax.Array:
        return jnp.sum(chosen & counted, 0, dtype=jnp.float32)

    right = 2 * count(found & there)
    either = count(found) + count(there)
    whole = jnp.all(found == there, axis=1)
    return {
        "micro_f1": Mean(right.sum(), either.sum()),
        "macro_f1": Mean(right, either),
        "exact_match": Mean.of(whole, weights),
    }


def label_class_scores(
    probabilities: np.ndarray, labels: np.ndarray, *, threshold: float = 0.5
) -> ClassScores:
    """Computes the scores of each class separately.

    Args:
        probabilities: (N, K).
        labels: (N, K) of 0 and 1.
        threshold: the probability above which a label is predicted.

    >>> label_class_scores(np.array([[0.9], [0.6]]), np.array([[1], [0]])).precision.tolist()
    [0.5]
    """
    found, there = np.asarray(probabilities) > threshold, np.asarray(labels) > 0.5
    return scores_of_counts((found & there).sum(0), there.sum(0), found.sum(0))


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the average precision of the ranking by each class's scores, float64 (K,).

    It is the sum of the precision at each rank times the gain in recall there, without
    interpolation (Manning, Raghavan & Schutze 2008, section 8.4); examples with equal scores share
    a rank. It is NaN for a class without examples. It needs the scores of all examples at once, so
    it cannot be computed as a mean over batches.

    Args:
        scores: (N, K), such as probabilities or logits.
        labels: (N, K) of 0 and 1.

    >>> average_precision(np.array([[0.9], [0.8], [0.7]]), np.array([[1], [0], [1]])).round(4)
    array([0.8333])
    """
    scores, labels = np.asarray(scores), np.asarray(labels) > 0.5
    precisions = np.full(scores.shape[1], np.nan)
    for k in range(scores.shape[1]):
        order = np.argsort(-scores[:, k], kind="stable")
        ranked, there = scores[order, k], labels[order, k]
        last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each rank
        right = there.cumsum()[last]
        if len(right) and right[-1]:
            gains = np.diff(right, prepend=0)
            precisions[k] = (right / (last + 1)) @ gains / right[-1]
    return precisions
