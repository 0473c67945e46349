"""Rows of predictions that several jobs return."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def class_answers(
    outputs: np.ndarray, class_names: Sequence[str], top: int
) -> list[dict[str, Any]]:
    """Returns for each input the likeliest class, its probability, and the likeliest `top` ones.

    Args:
        outputs: the probabilities of the classes, [N, K].
        class_names: K names.
        top: the number of classes to list, at least one.

    >>> class_answers(np.array([[0.25, 0.75]]), ["cat", "dog"], 1)
    [{'class': 'dog', 'probability': 0.75, 'top': [{'class': 'dog', 'probability': 0.75}]}]
    """
    rows = []
    for probabilities in outputs:
        listed = [
            {"class": class_names[index], "probability": float(probabilities[index])}
            for index in np.argsort(-probabilities, kind="stable")[:top]
        ]
        rows.append({**listed[0], "top": listed})
    return rows


def label_answers(
    outputs: np.ndarray, class_names: Sequence[str], threshold: float
) -> list[dict[str, Any]]:
    """Returns for each input all labels above a threshold, the likeliest first.

    Args:
        outputs: the probabilities of the labels, [N, K].
        class_names: K names.
        threshold: the probability above which a label is predicted.

    >>> label_answers(np.array([[0.25, 0.75, 0.5]]), ["cat", "dog", "eel"], 0.4)[0]["labels"]
    [{'label': 'dog', 'probability': 0.75}, {'label': 'eel', 'probability': 0.5}]
    """
    rows = []
    for probabilities in outputs:
        order = np.argsort(-probabilities, kind="stable")
        found = order[probabilities[order] > threshold]
        labels = [{"label": class_names[k], "probability": float(probabilities[k])} for k in found]
        rows.append({**(labels[0] if labels else {}), "labels": labels})
    return rows
