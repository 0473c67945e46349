"""Draws the texts that pictures retrieve, and the pictures that texts retrieve.

Shapes: Q queries, K results of each, H W C height, width and channels of a picture.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from dlcore.report.plots.figure import COLOURS, new_figure, save, shorten
from dlcore.report.plots.images import show

_RIGHT, _WRONG = COLOURS[2], "#444444"
_MOST = 72  # characters of a text


def plot_found_texts(
    images: np.ndarray,
    titles: Sequence[str],
    found: Sequence[Sequence[tuple[str, bool]]],
    path: pathlib.Path,
) -> None:
    """Draws pictures, and beside each its title above the texts that it finds.

    Args:
        images: uint8 (Q, H, W, C), C = 1 or 3.
        titles: Q short texts, such as the right one.
        found: the K texts of each picture, the best one first, and whether each is right.
        path: the PNG to write.
    """
    most = max(map(len, found))
    figure = new_figure(8, len(images) * (0.19 * (most + 1) + 0.25))
    axes = figure.subplots(len(images), 2, squeeze=False, width_ratios=(1, 6))
    for (left, right), image, title, lines in zip(axes, images, titles, found, strict=True):
        for axis in (left, right):
            axis.set_axis_off()
        show(left, image)
        written = [(title, "#000000", "bold")]
        written += [(line, _RIGHT if good else _WRONG, "normal") for line, good in lines]
        for place, (line, colour, weight) in enumerate(written):
            right.text(
                0, 1 - (place + 0.5) / (most + 1), shorten(line, _MOST), transform=right.transAxes,
                va="center", fontsize=9, color=colour, fontweight=weight,
            )  # fmt: skip
    save(figure, path)


def plot_found_pictures(
    titles: Sequence[str], images: np.ndarray, right: np.ndarray, path: pathlib.Path
) -> None:
    """Draws a row of the pictures that each text finds, with a frame around right ones.

    Args:
        titles: Q short texts, each above its row.
        images: uint8 (Q, K, H, W, C), C = 1 or 3, the best one first.
        right: bool (Q, K).
        path: the PNG to write.
    """
    rows, columns = right.shape
    figure = new_figure(max(1.1 * columns, 6.5), 1.45 * rows)
    for part, title, pictures, good in zip(
        figure.subfigures(rows, 1, squeeze=False)[:, 0], titles, images, right, strict=True
    ):
        part.suptitle(shorten(title, _MOST), fontsize=9, x=0.01, ha="left")
        for axis, image, is_right in zip(
            part.subplots(1, columns, squeeze=False)[0], pictures, good, strict=True
        ):
            show(axis, image)
            axis.set(xticks=(), yticks=())
            for spine in axis.spines.values():
                spine.set(visible=bool(is_right), color=_RIGHT, linewidth=3)
    save(figure, path)
