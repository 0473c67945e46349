"""Scores of codes that were learned without labels, by how well labels can be predicted from them.

Shapes: N examples to learn from, M to test on, K values of a code.
"""

import numpy as np

from dlcore.errors import InputError

_ROWS = 512  # whose distances to all others are in memory at once


def linear_probe(
    codes: np.ndarray, labels: np.ndarray, test_codes: np.ndarray, test_labels: np.ndarray
) -> float:
    """Returns the accuracy of logistic regression on codes that are scaled to unit deviation.

    Args:
        codes: [N, K].
        labels: int [N], of at least two classes.
        test_codes: [M, K].
        test_labels: int [M].

    Raises:
        InputError: for labels of a single class.
    """
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels)) < 2:
        raise InputError("a linear probe needs labels of two classes or more")
    codes, test_codes = np.asarray(codes, np.float64), np.asarray(test_codes, np.float64)
    mean, deviation = codes.mean(0), codes.std(0)
    # But for rounding, a unit that is always the same has no deviation.
    deviation = np.where(deviation > 1e-6 * np.abs(codes).max(0), deviation, 1.0)
    # The penalty is that of scikit-learn; it keeps separable classes from infinite weights.
    probe = LogisticRegression(max_iter=1000, tol=1e-3)
    probe.fit((codes - mean) / deviation, labels)
    return float((probe.predict((test_codes - mean) / deviation) == test_labels).mean())


def nearest_neighbours(
    codes: np.ndarray,
    labels: np.ndarray,
    test_codes: np.ndarray,
    test_labels: np.ndarray,
    *,
    neighbours: int = 5,
) -> float:
    """Returns the accuracy of the vote of the nearest codes by L2 distance.

    Of classes with equally many votes, the one with the nearest neighbour wins.

    Args:
        codes: [N, K].
        labels: int [N].
        test_codes: [M, K].
        test_labels: int [M].
        neighbours: the number of neighbours that vote; all N where there are fewer.

    >>> codes = np.array([[0.0], [1.0], [5.0]])
    >>> nearest_neighbours(codes, np.array([3, 3, 4]), codes, np.array([3, 3, 4]), neighbours=1)
    1.0
    """
    codes, test_codes = np.asarray(codes, np.float64), np.asarray(test_codes, np.float64)
    labels, count = np.asarray(labels), min(neighbours, len(codes))
    squares = (codes**2).sum(1)
    right = 0
    for start in range(0, len(test_codes), _ROWS):
        rows = test_codes[start : start + _ROWS]
        distances = squares - 2 * rows @ codes.T
        among = np.argpartition(distances, count - 1, axis=1)[:, :count]
        order = np.argsort(np.take_along_axis(distances, among, 1), axis=1, kind="stable")
        votes = labels[np.take_along_axis(among, order, 1)]
        # For each neighbour, the votes of its class; the first of the most wins.
        counts = (votes[:, :, None] == votes[:, None, :]).sum(2)
        chosen = votes[np.arange(len(rows)), counts.argmax(1)]
        right += int((chosen == test_labels[start : start + _ROWS]).sum())
    return right / len(test_codes)
