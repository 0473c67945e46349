"""Confidence intervals of 95 %."""

import math
from typing import NamedTuple

import numpy as np

NORMAL = 1.959963984540054  # the 97.5 % quantile of the normal distribution


class Estimate(NamedTuple):
    """A number and its 95 % confidence interval.

    Attributes:
        value: the estimate.
        low: the lower end.
        high: the upper end.
    """

    value: float
    low: float
    high: float


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval of a share (Wilson 1927); (0, 1) without trials.

    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    if not trials:
        return 0.0, 1.0
    share, square = successes / trials, NORMAL**2 / trials
    middle = share + square / 2
    spread = math.sqrt(square * (share * (1 - share) + square / 4))
    # Rounding must not leave [0, 1], nor exclude the share.
    low = 0.0 if successes == 0 else (middle - spread) / (1 + square)
    high = 1.0 if successes == trials else (middle + spread) / (1 + square)
    return low, high


def share_of(right: np.ndarray) -> Estimate:
    """Returns the share of true values, with Wilson's interval; NaN without values.

    >>> share_of(np.array([True, False])).value
    0.5
    """
    successes, trials = int(np.sum(right)), np.size(right)
    return Estimate(successes / trials if trials else math.nan, *wilson_interval(successes, trials))


def mean_of(values: np.ndarray) -> Estimate:
    """Returns the mean of independent values (N,), with the normal interval; N is at least 2.

    >>> mean_of(np.array([0.0, 1.0])).value
    0.5
    """
    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    spread = NORMAL * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Estimate(mean, mean - spread, mean + spread)
