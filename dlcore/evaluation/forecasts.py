"""Scores forecasts, and makes the baseline forecasts that a forecaster must beat.

Shapes: n windows of a batch, C steps of the context, H steps of the horizon, D columns, Q
quantiles, T steps of a series.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from dlcore.errors import InputError

# Maps contexts [n, C, D] to forecasts [n, H, D, Q].
Forecast = Callable[[np.ndarray], np.ndarray]
Batches = Iterable[Mapping[str, np.ndarray]]

# Shares of the number of examples that the ridge adds to the diagonal; the least keeps the
# equations solvable where columns are constant.
_STRENGTHS = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Numbers of the moments of all columns above which they share one map.
_MOST_NUMBERS = 1 << 26
# A period must have at least this autocorrelation, and this share of the highest one: its multiples
# have about as much.
_LEAST_CORRELATION, _SHARE = 0.1, 0.95


class ForecastScores(NamedTuple):
    """The errors of forecasts over all windows.

    Attributes:
        mse: the mean squared error of the point forecast by step ahead and column, float64 [H, D].
        mae: the mean absolute error, [H, D].
        below: the share of true values that are at most the quantile, [Q].
        coverage: the share of true values from the lowest quantile to the highest.
        width: the mean distance of these two quantiles.
    """

    mse: np.ndarray
    mae: np.ndarray
    below: np.ndarray
    coverage: float
    width: float


def score_forecasts(forecast: Forecast, batches: Batches, *, point: int = 0) -> ForecastScores:
    """Returns the errors of forecasts on windows, all summed in float64.

    Args:
        forecast: maps contexts [n, C, D] to forecasts [n, H, D, Q], quantiles in rising order.
        batches: {"context", "target"} and, where some rows are padding, "weight" of 0.
        point: the index of the point forecast among the Q outputs.

    Raises:
        ValueError: when there are no windows.
    """
    sums: list[np.ndarray] | None = None
    count = 0
    for batch in batches:
        found = np.asarray(forecast(batch["context"]), np.float64)
        target = np.asarray(batch["target"], np.float64)
        real = np.asarray(batch.get("weight", np.ones(len(target)))) > 0
        found, target = found[real], target[real]
        error = found[..., point] - target
        within = (found[..., 0] <= target) & (target <= found[..., -1])
        parts = [
            (error**2).sum(0),
            np.abs(error).sum(0),
            (target[..., None] <= found).mean((1, 2)).sum(0),
            within.mean((1, 2)).sum(),
            (found[..., -1] - found[..., 0]).mean((1, 2)).sum(),
        ]
        sums = parts if sums is None else [a + b for a, b in zip(sums, parts, strict=True)]
        count += len(target)
    if sums is None or not count:
        raise ValueError("there are no windows to score")
    mse, mae, below, coverage, width = (each / count for each in sums)
    return ForecastScores(mse, mae, below, float(coverage), float(width))


def persistence(horizon: int) -> Forecast:
    """Returns the forecast that every next step equals the last one."""
    return seasonal_naive(horizon, 1)


def seasonal_naive(horizon: int, period: int) -> Forecast:
    """Returns the forecast that every next step equals the last one at its place in the period.

    Args:
        horizon: H.
        period: the period in steps, at most C.

    >>> context = np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    >>> seasonal_naive(3, 2)(context).ravel().tolist()
    [2.0, 3.0, 2.0]
    """

    def forecast(context: np.ndarray) -> np.ndarray:
        steps = context.shape[1] - period + np.arange(horizon) % period
        return context[:, steps, :, None]

    return forecast


def find_period(values: np.ndarray, longest: int) -> int:
    """Returns the lag of the first high peak of the autocorrelation, averaged over the columns.

    A peak is higher than both of its neighbours. It is high from 0.1 and from 0.95 of the highest
    one on, since the multiples of a period have about the same autocorrelation.

    Args:
        values: [T, D].
        longest: the longest lag to look at.

    Returns:
        A lag from 2 on; 1 where there is no peak.

    >>> find_period(np.sin(np.arange(100) * (2 * np.pi / 12))[:, None], 40)
    12
    """
    centred = np.asarray(values, np.float64)
    centred = centred - centred.mean(0)
    scale = np.sqrt((centred**2).mean(0))
    centred = centred[:, scale > 0] / scale[scale > 0]
    longest = min(longest, len(centred) // 2)
    if longest < 2 or not centred.shape[1]:
        return 1
    # Padded, so that the ends do not meet.
    spectrum = np.abs(np.fft.rfft(centred, 2 * len(centred), axis=0)) ** 2
    r = np.fft.irfft(spectrum, axis=0)[: longest + 2].mean(1)
    r /= len(centred) - np.arange(longest + 2)
    lags = np.arange(2, longest + 1)
    peaks = lags[
        (r[lags] > r[lags - 1]) & (r[lags] > r[lags + 1]) & (r[lags] >= _LEAST_CORRELATION)
    ]
    return int(peaks[r[peaks] >= _SHARE * r[peaks].max()][0]) if len(peaks) else 1


# A linear map, by least squares.


@dataclasses.dataclass(frozen=True)
class LinearMap:
    """A linear map from context to horizon.

    Attributes:
        kernel: float64 [D, C, H], or [1, C, H] where all columns share it.
        bias: float64 [D, H], or [1, H].
        form: how the map was fitted, in words.
    """

    kernel: np.ndarray
    bias: np.ndarray
    form: str

    def __call__(self, context: np.ndarray) -> np.ndarray:
        """Maps contexts [n, C, D] to forecasts [n, H, D, 1]."""
        columns = np.moveaxis(np.asarray(context, np.float64), 2, 0)
        found = columns @ self.kernel + self.bias[:, None]
        return np.moveaxis(found, 0, 2)[..., None]


class _Moments(NamedTuple):
    """The second moments of contexts, with a 1 appended to each, and of the steps after them.

    Attributes:
        gram: [D, C + 1, C + 1].
        cross: [D, C + 1, H].
        square: [D, H].
        windows: the number of windows, of one column each.
    """

    gram: np.ndarray
    cross: np.ndarray
    square: np.ndarray
    windows: int

    def together(self) -> "_Moments":
        """Returns the moments of all columns as if they were one."""
        gram, cross, square = (each.sum(0, keepdims=True) for each in self[:3])
        return _Moments(gram, cross, square, self.windows * len(self.gram))

    def plus(self, other: "_Moments") -> "_Moments":
        """Returns the moments of the windows of both."""
        return _Moments(
            self.gram + other.gram,
            self.cross + other.cross,
            self.square + other.square,
            self.windows + other.windows,
        )

    def error(self, weights: np.ndarray) -> float:
        """Returns the mean squared error of maps [D or 1, C + 1, H]."""
        total = (self.square - 2 * (weights * self.cross).sum(1)).sum()
        total += (weights * (self.gram @ weights)).sum()
        return float(total / (self.windows * self.square.size))


def fit_linear(train: Batches, validation: Batches, *, shared: bool = False) -> LinearMap:
    """Returns the linear map of least squares that is best on the validation part.

    The choice is among one map for all columns and a map for each, among maps of the values and of
    their differences from the last value, which is then added to the forecast (NLinear, Zeng et al.
    2023), and among six strengths of the ridge (Hoerl & Kennard 1970). Where maps for single
    columns would take more than half a gigabyte, the columns share one.

    Args:
        train: {"context", "target"} of the windows to fit.
        validation: the same of the windows to choose with.
        shared: whether all columns must share one map.
    """
    fitted, judged = _moments(train), _moments(validation)
    best: tuple[float, LinearMap] | None = None
    alone = shared or len(fitted.gram) == 1
    for together, relative in itertools.product((True,) if alone else (True, False), (False, True)):
        moments = fitted.together() if together else fitted
        for strength in _STRENGTHS:
            weights = _ridge(moments, strength, relative)
            error = judged.error(weights)
            if best is None or error < best[0]:
                whose = "one for all columns" if together else "one for each column"
                what = "of differences from the last value, " if relative else ""
                form = f"{whose}, {what}ridge {strength:g}"
                best = error, LinearMap(weights[:, :-1], weights[:, -1], form)
    assert best is not None
    return best[1]


def _ridge(moments: _Moments, strength: float, relative: bool) -> np.ndarray:
    """Returns the weights [D, C + 1, H], the bias last, of the least squared error."""
    gram, cross = moments.gram, moments.cross
    size = gram.shape[1]
    change = np.eye(size)
    last = np.zeros((size, 1))
    if relative:
        # Differences are a linear map of the values, and so are their moments.
        change[size - 2, : size - 1] -= 1
        last[size - 2] = 1
        cross = cross - gram @ last
        gram, cross = change.T @ gram @ change, change.T @ cross
    ridge = np.eye(size) * (strength * moments.windows)
    ridge[-1, -1] = 0
    if relative:
        ridge[-2, -2] = moments.windows  # the last difference is always 0
    return change @ np.linalg.solve(gram + ridge, cross) + last


def _moments(batches: Batches) -> _Moments:
    found: _Moments | None = None
    for batch in batches:
        context, target = (
            np.moveaxis(np.asarray(batch[name], np.float64), 2, 0) for name in ("context", "target")
        )
        x = np.concatenate([context, np.ones((*context.shape[:2], 1))], axis=2)
        flipped = x.swapaxes(1, 2)
        new = _Moments(flipped @ x, flipped @ target, (target**2).sum(1), context.shape[1])
        if new.gram.size > _MOST_NUMBERS:
            new = new.together()
        found = new if found is None else found.plus(new)
    if found is None:
        raise InputError("there are no windows to fit a linear map to; give a longer series")
    return found
