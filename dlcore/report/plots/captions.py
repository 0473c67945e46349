"""Draws pictures with texts, and the regions to which a captioner attended.

Shapes: H W C a picture, h w the positions of a map of attention, T words.
"""

import pathlib
import textwrap
from collections.abc import Sequence

import numpy as np

from dlcore.report.plots.figure import new_figure, save
from dlcore.report.plots.images import show

_LINE = 70  # characters of a line
_COLUMNS = 8  # maps in a row


def plot_captions(
    images: Sequence[np.ndarray],
    lines: Sequence[Sequence[str]],
    path: pathlib.Path,
    *,
    title: str,
) -> None:
    """Draws pictures below each other, each with lines of text beside it.

    Args:
        images: uint8 [H, W, C], C = 1 or 3, at least one.
        lines: the lines of each picture.
        path: the PNG to write.
        title: the title above all pictures.
    """
    wrapped = ["\n".join(textwrap.fill(line, _LINE) for line in of) for of in lines]
    heights = [max(0.8, 0.17 * (1 + text.count("\n")) + 0.1) for text in wrapped]
    figure = new_figure(7.5, sum(heights) + 0.5)
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(
        len(images), 2, squeeze=False, height_ratios=heights, width_ratios=(1, 7)
    )
    for (left, right), image, text in zip(axes, images, wrapped, strict=True):
        left.set_axis_off()
        right.set_axis_off()
        show(left, image)
        right.text(0, 0.5, text, fontsize=8, va="center", transform=right.transAxes)
    save(figure, path)


def plot_look(
    image: np.ndarray, words: Sequence[str], weights: np.ndarray, path: pathlib.Path
) -> None:
    """Draws a picture and, for each word, the picture with the attention of that word over it.

    Args:
        image: uint8 [H, W, C], C = 1 or 3.
        words: the T words in order.
        weights: [T, h, w], at least 0.
        path: the PNG to write.
    """
    columns = min(1 + len(words), _COLUMNS)
    rows = -(-(1 + len(words)) // columns)
    figure = new_figure(1.25 * columns, 1.5 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    show(axes[0], image)
    height, width = image.shape[:2]
    edges = (-0.5, width - 0.5, height - 0.5, -0.5)  # left, right, bottom, top
    for axis, word, of in zip(axes[1:], words, weights, strict=False):
        show(axis, image)
        axis.imshow(
            of, cmap="inferno", alpha=0.65, vmin=0, vmax=of.max() or 1, extent=edges,
            interpolation="nearest",
        )  # fmt: skip
        axis.set_title(textwrap.fill(word, 14), fontsize=8)
    save(figure, path)
