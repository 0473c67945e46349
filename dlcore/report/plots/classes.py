"""Draws confusion matrices and reliability diagrams of classes. Shapes: K classes."""

import pathlib
from collections.abc import Sequence

import numpy as np

from dlcore.metrics import Calibration
from dlcore.report.plots.figure import COLOURS, dress, new_figure, save, shorten

_MOST_CLASSES_WITH_NUMBERS = 20


def plot_confusion(matrix: np.ndarray, class_names: Sequence[str], path: pathlib.Path) -> None:
    """Draws the confusion matrix: counts as numbers, the share of the true class as colour.

    Args:
        matrix: (K, K) counts, true class by row, predicted class by column.
        class_names: K names.
        path: the PNG to write.
    """
    from matplotlib.colors import PowerNorm

    count = len(class_names)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(max(4.2, 0.5 * count + 1.6), 11)
    figure = new_figure(side + 0.9, side)
    axis = figure.subplots()
    # A root scale: the few mistakes are the message, and invisible beside the diagonal without it.
    shown = axis.imshow(shares * 100, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    figure.colorbar(shown, ax=axis, label="share of the true class (%)", shrink=0.8)
    if count <= _MOST_CLASSES_WITH_NUMBERS:
        for (row, column), number in np.ndenumerate(matrix):
            if number:
                colour = "white" if shares[row, column] > 0.4 else "black"
                axis.text(
                    column,
                    row,
                    _compact(int(number)),
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=8,
                )
    positions = range(0, count, max(1, count // 50))
    names = [shorten(str(class_names[p]), 24) for p in positions]
    long = max(map(len, names)) > 3
    axis.set_xticks(positions, names, rotation=90 if long else 0, fontsize=8)
    axis.set_yticks(positions, names, fontsize=8)
    accuracy = np.trace(matrix) / max(matrix.sum(), 1)
    axis.set(
        title=f"Confusion matrix: {accuracy:.2%} of {matrix.sum():,} right",
        xlabel="predicted class",
        ylabel="true class",
    )
    save(figure, path)


def plot_calibration(calibration: Calibration, path: pathlib.Path) -> None:
    """Draws the reliability diagram: the share that is right and the count, by confidence.

    Args:
        calibration: the result of `dlcore.metrics.calibration`.
        path: the PNG to write.
    """
    bins = len(calibration.counts)
    left, width = np.arange(bins) / bins * 100, 100 / bins
    figure = new_figure(5.4, 5.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.bar(
        left,
        calibration.accuracy * 100,
        width,
        align="edge",
        color=COLOURS[0],
        edgecolor="white",
        label="right",
    )
    upper.plot([0, 100], [0, 100], "--", color="#555555", linewidth=1, label="as sure as right")
    upper.scatter(
        calibration.confidence * 100,
        calibration.accuracy * 100,
        s=12,
        color="black",
        zorder=3,
        label="mean confidence",
    )
    upper.set(
        title=f"Calibration: expected error {calibration.error:.2%}",
        ylabel="right (%)",
        xlim=(0, 100),
        ylim=(0, 103),
    )
    upper.legend(framealpha=0.8, edgecolor="none", loc="upper left")
    lower.bar(left, calibration.counts, width, align="edge", color=COLOURS[1], edgecolor="white")
    lower.set(xlabel="confidence (%)", ylabel="predictions")
    lower.set_yscale("symlog", linthresh=1)
    for axis in (upper, lower):
        dress(axis)
    save(figure, path)


def _compact(number: int) -> str:
    """Writes a count, up to a billion, in at most five characters.

    >>> _compact(123456)
    '123k'
    """
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if number >= 10 * size:
            return f"{number // size}{unit}"
    return str(number)
