"""Draws the behaviour of a machine with a memory. Shapes: T steps, N rows of the memory."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from dlcore.report.plots.figure import new_figure, save


def plot_memory(
    pictures: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    path: pathlib.Path,
    *,
    title: str = "",
) -> None:
    """Draws arrays one above another, with time from left to right (Graves et al. 2014, figure 6).

    The memory is a ring: its rows are drawn from the end of the longest run of unused rows to its
    beginning, the same rows for all heads.

    Args:
        pictures: arrays of numbers, (rows, T), by name.
        weights: the weights of each head by its name, (N, T).
        path: the PNG to write.
        title: the title above the picture.
    """
    rows = rows_in_use([*weights.values()]) if weights else []
    shown = {**pictures, **{name: array[rows] for name, array in weights.items()}}
    steps = next(iter(shown.values())).shape[1]
    heights = [min(max(len(array) * 0.09, 0.45), 2.2) for array in shown.values()]
    width = min(max(steps * 0.11, 5.0), 12.0)
    figure = new_figure(width + 2.2, sum(heights) + 0.2 * len(heights) + 0.7)
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    for axis, (name, array) in zip(axes, shown.items(), strict=True):
        array = np.asarray(array, np.float64)
        axis.imshow(
            array,
            cmap="viridis",
            aspect="auto",
            interpolation="nearest",
            vmin=min(0.0, array.min()),
            vmax=max(1.0, array.max()),
        )
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.yaxis.get_major_locator().set_params(integer=True, nbins=4)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if name in weights:
            places = range(0, len(rows), max(1, -(-len(rows) // 4)))
            axis.set_yticks(places, [str(rows[place]) for place in places])
    axes[-1].set_xlabel("step", fontsize=8)
    save(figure, path)


def rows_in_use(weights: Sequence[np.ndarray]) -> list[int]:
    """Returns the rows of a ring without the longest run of rows that no head looks at.

    Args:
        weights: the weights of each head, (N, T); a row is in use if one of its weights is above
            0.1.

    >>> rows_in_use([np.array([[0.9], [0.0], [0.0], [0.0], [0.5]])])
    [4, 0]
    """
    largest = np.max([array.max(axis=1) for array in weights], axis=0)
    used, count = np.flatnonzero(largest > 0.1), len(largest)
    if not len(used):
        return [*range(count)]
    gaps = np.diff(used, append=used[0] + count)
    place = int(np.argmax(gaps))
    first = int(used[(place + 1) % len(used)])
    return [(first + step) % count for step in range(count - int(gaps[place]) + 1)]
