"""Rows of predictions that several jobs give."""

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
