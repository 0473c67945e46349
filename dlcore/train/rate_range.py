"""The learning-rate range test: training in which the rate grows until the loss does.

Smith 2017, section 3.3, with a rate that grows exponentially. A rate at which the loss falls
fastest is a good one to train with.

Shapes: N steps.
"""

import math
from typing import NamedTuple

import numpy as np
import optax

from dlcore.errors import InputError
from dlcore.optim.schedules import Schedule
from dlcore.train.loop import Hook, Loop

# The rates that are tried.
LOWEST, HIGHEST = 1e-6, 10.0
# The standard deviation of the smoothing, in decades of the rate.
_WIDTH = 0.15
# The decay of the average of the losses so far, and by how often its lowest value it may exceed it.
_DECAY, _EXCESS = 0.9, 3.0


def rising(steps: int) -> Schedule:
    """Returns the rate that grows exponentially from `LOWEST` to `HIGHEST` over N steps.

    >>> rate = rising(8)
    >>> [f"{float(rate(t)):.0e}" for t in (0, 1, 7)]
    ['1e-06', '1e-05', '1e+01']
    """
    return optax.exponential_decay(LOWEST, max(steps - 1, 1), HIGHEST / LOWEST)


class RangeTest(Hook):
    """A hook that gathers the losses by learning rate, and ends training once the loss diverges.

    The loss has diverged when a step is skipped, when its loss is not finite, or when the average
    of the losses so far exceeds its lowest value by three times that value.

    Attributes:
        losses: the losses of the steps so far.
        diverged: whether the loss has diverged.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.diverged = False
        self._sum, self._lowest = 0.0, math.inf

    def read(self, loop: Loop, number: int, values: np.ndarray) -> None:
        if self.diverged:  # a step that was dispatched before the end
            return
        if "loss" not in loop.names:
            raise InputError(
                f"a learning rate is found by the metric 'loss', but this step reports "
                f"{sorted(loop.names)}; leave out --find_rate"
            )
        total, weight = values[loop.names.index("loss")]
        if weight == 0 or not math.isfinite(total):
            self._diverge(loop)
            return
        self.losses.append(total / weight)
        self._sum = _DECAY * self._sum + (1 - _DECAY) * self.losses[-1]
        average = self._sum / (1 - _DECAY ** len(self.losses))
        self._lowest = min(self._lowest, average)
        if average > self._lowest + _EXCESS * abs(self._lowest):
            self._diverge(loop)

    def _diverge(self, loop: Loop) -> None:
        self.diverged = True
        loop.stop("diverged")


class Found(NamedTuple):
    """The findings of a range test.

    Attributes:
        rates: the learning rates, float64 (N,).
        losses: the losses at these rates, float64 (N,).
        smooth: the smoothed losses, float64 (N,).
        steepest: the rate at which the smoothed loss falls fastest; None where it does not fall by
            more than its noise.
        lowest: the rate at which the smoothed loss is lowest.
    """

    rates: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray
    steepest: float | None
    lowest: float


def analyse(rates: np.ndarray, losses: np.ndarray) -> Found:
    """Smooths the losses and finds the rate of the steepest descent before their minimum.

    A running average of the losses so far would lag behind and lead to too large a rate. So each
    loss is averaged with its neighbours on either side, by a Gaussian whose width is 0.15 decades
    of the rate and at least one step. The descent is the derivative with respect to the logarithm
    of the rate. The noise is twice the standard deviation of the losses before the minimum about
    the smoothed ones.

    Args:
        rates: the learning rates (N,), growing exponentially, N >= 2.
        losses: the losses (N,).
    """
    places = np.log10(np.asarray(rates, np.float64))
    losses = np.asarray(losses, np.float64)
    width = max(_WIDTH, places[1] - places[0])
    kernel = np.exp(-0.5 * ((places[:, None] - places[None]) / width) ** 2)
    smooth = kernel @ losses / kernel.sum(1)
    end = int(smooth.argmin())
    slopes = np.gradient(smooth, places)[: end + 1]
    noise = 2 * np.std((losses - smooth)[: end + 1])
    falls = end > 0 and smooth[0] - smooth[end] > noise
    steepest = float(rates[slopes.argmin()]) if falls else None
    return Found(np.asarray(rates), losses, smooth, steepest, float(rates[end]))
