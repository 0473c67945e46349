"""Draws a number for each of several groups."""

import pathlib
from collections.abc import Mapping

from dlcore.report.plots.figure import COLOURS, dress, new_figure, save


def plot_bars(
    values: Mapping[str, float], path: pathlib.Path, *, title: str, x: str, y: str
) -> None:
    """Draws a bar for each group, with its number on top.

    Args:
        values: the number of each group by its name, at least 0, in the order to show.
        path: the PNG to write.
        title: the title above the picture.
        x: the label of the groups.
        y: the label of the numbers, with their unit.
    """
    figure = new_figure(max(1.3 * len(values) + 1, 4), 3.6)
    axis = figure.subplots()
    bars = axis.bar(range(len(values)), list(values.values()), width=0.7, color=COLOURS[0])
    axis.bar_label(bars, fmt="%.1f", padding=2)
    axis.set_xticks(range(len(values)), list(values))
    axis.margins(y=0.12)
    axis.set(title=title, xlabel=x, ylabel=y)
    dress(axis)
    axis.grid(False, axis="x")
    axis.set_axisbelow(True)
    save(figure, path)
