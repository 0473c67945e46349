"""Draws pictures with their objects and detections."""

import itertools
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dlcore.report.plots.figure import COLOURS, dress, new_figure, save, shorten
from dlcore.report.plots.images import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRUE, FOUND = COLOURS[2], COLOURS[1]


class Shown(NamedTuple):
    """A picture with its objects and detections.

    Attributes:
        image: uint8 [H, W, C], C = 1, 3 or 4.
        boxes: [n, 4], y_min, x_min, y_max, x_max of the objects, in the picture's pixels.
        names: the name of each object.
        found: [m, 4], the detected boxes.
        found_names: the label of each detection, such as its class and score.
        points: [P, 2], y and x of the true landmarks.
        found_points: [P, 2], the detected landmarks.
        caption: the caption above the picture.
    """

    image: np.ndarray
    boxes: np.ndarray
    names: Sequence[str]
    found: np.ndarray
    found_names: Sequence[str]
    points: np.ndarray
    found_points: np.ndarray
    caption: str = ""


def plot_detections(pictures: Sequence[Shown], path: pathlib.Path, *, title: str) -> None:
    """Draws pictures with their objects in green and their detections, dashed, in orange.

    Args:
        pictures: the pictures, at least one.
        path: the PNG to write.
        title: the title above the picture.
    """
    columns = min(len(pictures), 4)
    rows = -(-len(pictures) // columns)
    figure = new_figure(2.4 * columns, 2.6 * rows + 0.5)
    figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, one in zip(axes, pictures, strict=False):
        show(axis, one.image)
        _boxes(axis, one.boxes, one.names, TRUE, below=True)
        _boxes(axis, one.found, one.found_names, FOUND, below=False)
        for points, colour, marker in ((one.points, TRUE, "o"), (one.found_points, FOUND, "x")):
            # The middle of the first pixel is at 0 here.
            axis.scatter(
                points[:, 1] - 0.5, points[:, 0] - 0.5, c=colour, marker=marker, s=16, linewidths=1
            )
        axis.set_title(one.caption, fontsize=8)
    save(figure, path)


def _boxes(
    axis: "Axes", boxes: np.ndarray, names: Sequence[str], colour: str, *, below: bool
) -> None:
    from matplotlib.patches import Rectangle

    for (top, left, bottom, right), name in zip(boxes, names, strict=True):
        axis.add_patch(
            Rectangle(
                (left - 0.5, top - 0.5),
                right - left,
                bottom - top,
                fill=False,
                edgecolor=colour,
                linewidth=1.2,
                linestyle="-" if below else "--",
            )
        )
        axis.text(
            left - 0.5,
            bottom - 0.5 if below else top - 0.5,
            shorten(name),
            fontsize=6,
            color="white",
            va="top" if below else "bottom",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.5},
            clip_on=True,
        )


def plot_shapes(
    sizes: np.ndarray, shapes: np.ndarray, nearest: np.ndarray, path: pathlib.Path
) -> None:
    """Draws the sizes of objects and the anchors that were fitted to them.

    Args:
        sizes: [N, 2], height and width of the objects, in pixels.
        shapes: [k, 2], the shapes of the anchors.
        nearest: [N], the anchor of each object.
        path: the PNG to write.
    """
    figure = new_figure(5.2, 4.8)
    axis = figure.subplots()
    for k, colour in zip(range(len(shapes)), itertools.cycle(COLOURS), strict=False):
        own = sizes[nearest == k]
        axis.scatter(own[:, 1], own[:, 0], s=4, color=colour, alpha=0.4, linewidths=0)
    axis.scatter(
        shapes[:, 1], shapes[:, 0], marker="X", s=90, color="black", edgecolor="white",
        label="anchors",
    )  # fmt: skip
    axis.set(title="Anchors and objects", xlabel="width (pixels)", ylabel="height (pixels)")
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    dress(axis)
    axis.legend(framealpha=0.8, edgecolor="none")
    save(figure, path)
