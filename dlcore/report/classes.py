"""The report sections of classifiers of all kinds. Shapes: N examples, K classes."""

from collections.abc import Mapping, Sequence

import numpy as np

from dlcore.metrics import (
    ClassScores,
    average_precision,
    calibration,
    class_scores,
    label_class_scores,
)
from dlcore.report import markup
from dlcore.report.plots import plot_calibration, plot_confusion
from dlcore.report.sections import Section, picture_section


def confusion_matrix(
    labels: np.ndarray, predictions: np.ndarray, *, num_classes: int
) -> np.ndarray:
    """Counts pairs of classes, (K, K): true class by row, predicted class by column.

    Args:
        labels: (N,) integers in 0..K-1.
        predictions: (N,) integers in 0..K-1.
        num_classes: K.

    Raises:
        ValueError: when a class is not in 0..K-1 or the lengths differ.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), num_classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and predictions {predictions.shape} must be (N,)")
    both = np.concatenate([labels, predictions])
    if both.size and not (both.min() >= 0 and both.max() < num_classes):
        raise ValueError(f"classes {both.min()}..{both.max()} do not lie in 0..{num_classes - 1}")
    counts = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def confusion_section(
    labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]
) -> Section:
    """Shows the confusion matrix as a picture."""
    matrix = confusion_matrix(labels, predictions, num_classes=len(class_names))
    return picture_section(
        "Confusion matrix", "confusion", lambda path: plot_confusion(matrix, class_names, path)
    )


def class_section(
    labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]
) -> Section:
    """Lists precision, recall and F1 of each class, the worst first."""
    scores = class_scores(confusion_matrix(labels, predictions, num_classes=len(class_names)))
    return _class_table(scores, class_names)


def label_section(
    labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], *, threshold: float
) -> Section:
    """Lists precision, recall, F1 and average precision of each label, the worst F1 first.

    Args:
        labels: (N, K) of 0 and 1.
        probabilities: (N, K).
        class_names: K names.
        threshold: the probability above which a label is predicted.
    """
    scores = label_class_scores(probabilities, labels, threshold=threshold)
    precisions = average_precision(probabilities, labels)
    return _class_table(scores, class_names, {"average precision": precisions})


def _class_table(
    scores: ClassScores, class_names: Sequence[str], more: Mapping[str, np.ndarray] | None = None
) -> Section:
    columns = {"precision": scores.precision, "recall": scores.recall, "F1": scores.f1}
    columns |= more or {}
    order = np.argsort(np.nan_to_num(scores.f1, nan=2), kind="stable")
    rows = [
        (class_names[k], f"{scores.examples[k]:,}")
        + tuple(f"{score[k]:.1%}" if score[k] >= 0 else "-" for score in columns.values())
        for k in order
    ]
    header = ("class", "examples", *columns)
    return Section("Classes", lambda folder: markup.table(rows, header=header))


def calibration_section(labels: np.ndarray, probabilities: np.ndarray) -> Section:
    """Shows how reliable the probabilities are."""
    result = calibration(probabilities, labels)
    return picture_section(
        "Calibration",
        "calibration",
        lambda path: plot_calibration(result, path),
        text=f"Expected calibration error: {result.error:.2%}.",
    )


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns the indices of the wrong predictions, the most confident first.

    Args:
        labels: (N,) true classes.
        probabilities: (N, K).

    >>> worst_mistakes(np.array([0, 0, 1]), np.array([[0.4, 0.6], [0.1, 0.9], [0.2, 0.8]])).tolist()
    [1, 0]
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
