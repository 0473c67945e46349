"""Computes correlations and confidence intervals. Shapes: N observations."""

import math

import numpy as np

from dlcore.metrics.intervals import NORMAL


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Returns Spearman's rank correlation, where equal values share the mean of their ranks.

    Args:
        first: (N,).
        second: (N,).

    Returns:
        A number from -1 to 1; NaN when one of the two is constant or N < 2.

    >>> round(spearman(np.array([1, 2, 3, 4]), np.array([10, 30, 20, 40])), 6)
    0.8
    """
    return pearson(*(_ranks(np.asarray(values)) for values in (first, second)))


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the linear correlation of Pearson.

    Args:
        first: (N,).
        second: (N,).

    Returns:
        A number from -1 to 1; NaN when one of the two is constant or N < 2.

    >>> round(pearson(np.array([1, 2, 3]), np.array([2, 4, 9])), 6)
    0.970725
    """
    x, y = (
        values - values.mean() if values.size else values
        for values in (np.asarray(each, np.float64) for each in (first, second))
    )
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return max(-1.0, min(float(x @ y) / scale, 1.0)) if scale else math.nan


def fisher_interval(correlation: float, count: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval of a rank correlation, by z = artanh(correlation).

    z is Fisher's transformation; its variance is 1.06 / (N - 3) for ranks (Fieller, Hartley &
    Pearson 1957).

    Args:
        correlation: Spearman's rank correlation.
        count: N.

    Returns:
        The two ends; (-1, 1) when the correlation is not defined or N < 4.

    >>> low, high = fisher_interval(0.8, 30)
    >>> round(low, 3), round(high, 3)
    (0.611, 0.903)
    """
    if count < 4 or math.isnan(correlation):
        return -1.0, 1.0
    if abs(correlation) == 1:
        return correlation, correlation
    z, spread = math.atanh(correlation), NORMAL * math.sqrt(1.06 / (count - 3))
    return math.tanh(z - spread), math.tanh(z + spread)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns the ranks from 1 on, float64 (N,); equal values share the mean of their ranks."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group]
