"""Draws time series and their forecasts. Shapes: C steps of a context, H of a horizon."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dlcore.report.plots.figure import COLOURS, dress, new_figure, save, shorten

_STEPS = 3  # horizons of the context that are shown before the forecast


class ShownForecast(NamedTuple):
    """A forecast of one column.

    Attributes:
        title: the title above its panel.
        context: the context [C].
        truth: the true values [H].
        forecast: the forecast [H].
        low: the lower end of the interval, [H]; None for none.
        high: the upper end.
        compared: another forecast, [H].
    """

    title: str
    context: np.ndarray
    truth: np.ndarray
    forecast: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    compared: np.ndarray


def plot_forecasts(
    panels: Sequence[ShownForecast], path: pathlib.Path, *, interval: str = "", compared: str
) -> None:
    """Draws forecasts with their contexts and the true values, two panels in a row.

    Args:
        panels: the forecasts.
        path: the PNG to write.
        interval: the name of the intervals.
        compared: the name of the other forecast.
    """
    rows = -(-len(panels) // 2)
    figure = new_figure(11, 2.6 * rows + 0.4)
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    for axis, shown in zip(axes, panels, strict=False):
        horizon = len(shown.truth)
        before = shown.context[-_STEPS * horizon :]
        ahead = np.arange(1, horizon + 1)
        axis.plot(np.arange(1 - len(before), 1), before, color="#555555", lw=1, label="context")
        if shown.low is not None and shown.high is not None:
            axis.fill_between(
                ahead, shown.low, shown.high, color=COLOURS[0], alpha=0.25, lw=0, label=interval
            )
        axis.plot(ahead, shown.truth, color="#000000", lw=1.2, label="truth")
        axis.plot(ahead, shown.compared, color=COLOURS[1], lw=1, ls="--", label=compared)
        axis.plot(ahead, shown.forecast, color=COLOURS[0], lw=1.6, label="forecast")
        axis.axvline(0.5, color="#bbbbbb", lw=1)
        axis.set_title(shorten(shown.title, 60), fontsize=10)
        axis.set_xlabel("steps ahead")
        dress(axis)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    save(figure, path)
