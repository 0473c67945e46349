"""Draws images and filters. Shapes: N examples, K classes, H W C height, width and channels."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlcore.report.plots.figure import new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_mistakes(images: np.ndarray, captions: Sequence[str], path: pathlib.Path) -> None:
    """Draws images that were misclassified.

    Args:
        images: (N, H, W, C) uint8, C = 1 or 3.
        captions: the true and the predicted class of each, in one or two short lines.
        path: the PNG to write.
    """
    columns = min(max(len(images), 1), 5)
    rows = max(-(-len(images) // columns), 1)
    figure = new_figure(max(1.75 * columns, 5), 2.05 * rows + 0.5)
    figure.suptitle("Worst mistakes" if len(images) else "No mistakes")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, image, caption in zip(axes, images, captions, strict=False):
        show(axis, image)
        axis.set_title(caption, fontsize=8)
    save(figure, path)


def show(axis: "Axes", image: np.ndarray) -> None:
    if image.shape[-1] == 1:
        axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    else:
        axis.imshow(image, interpolation="nearest")


def tiled(images: np.ndarray, columns: int, *, gap: int = 1) -> np.ndarray:
    """Returns one picture of many, row by row: uint8 (H', W', 3), with white gaps and borders.

    Args:
        images: uint8 (N, H, W, C), C = 1 or 3.
        columns: the number of images in a row.
        gap: the number of pixels between two images.

    >>> tiled(np.zeros((3, 4, 5, 1), np.uint8), 2).shape
    (11, 13, 3)
    """
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows, height + gap, columns, width + gap, channels), 255, np.uint8)
    for number, image in enumerate(images):
        sheet[number // columns, :height, number % columns, :width] = image
    sheet = sheet.reshape(rows * (height + gap), columns * (width + gap), channels)
    framed = np.pad(sheet, ((gap, 0), (gap, 0), (0, 0)), constant_values=255)
    return np.ascontiguousarray(np.broadcast_to(framed, (*framed.shape[:2], 3)))


def plot_rows(rows: Mapping[str, np.ndarray], path: pathlib.Path, *, scale: float = 1.0) -> None:
    """Draws rows of images below each other, such as originals and a model's reconstructions.

    Args:
        rows: the images (N, H, W, C) uint8, C = 1 or 3, of each row by its name.
        path: the PNG to write.
        scale: the size at which an image is shown; 1 suits images for a quick look.
    """
    columns = max(map(len, rows.values()))
    figure = new_figure(0.75 * scale * columns + 1.5, 0.85 * scale * len(rows))
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        line[0].text(-0.15, 0.5, name, transform=line[0].transAxes, ha="right", va="center")
        for axis, image in zip(line, images, strict=False):
            show(axis, image)
    save(figure, path)


def plot_filters(
    kernel: np.ndarray, path: pathlib.Path, *, most: int = 64, layer: str = "First layer"
) -> None:
    """Draws the filters of a layer.

    Args:
        kernel: (H, W, C, filters). Three channels are shown in colour; otherwise the mean over the
            channels, blue below zero and red above it. All filters share one scale.
        path: the PNG to write.
        most: the largest number of filters to show.
        layer: the name of the layer in the title.
    """
    filters = np.moveaxis(np.asarray(kernel, np.float32), -1, 0)[:most]
    columns = min(len(filters), 8)
    rows = -(-len(filters) // columns)
    figure = new_figure(max(0.85 * columns + 1.2, 4.5), 0.85 * rows + 0.8)
    total = kernel.shape[-1]
    shown_of = f"{total}" if len(filters) == total else f"the first {len(filters)} of {total}"
    figure.suptitle(f"{layer}: {shown_of} filters")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    colour = filters.shape[-1] == 3
    shown = filters if colour else filters.mean(axis=-1)
    limit = max(float(np.abs(shown).max()), 1e-12)
    for axis, values in zip(axes.ravel(), shown, strict=False):
        if colour:
            axis.imshow(0.5 + values / (2 * limit), interpolation="nearest")
        else:
            picture = axis.imshow(
                values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
            )
    if not colour:
        figure.colorbar(picture, ax=axes, label="weight", shrink=0.9)
    save(figure, path)
