"""Draws points with names or pictures. Shapes: N points, D features."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlcore.report.plots.figure import COLOURS, dress, new_figure, save, shorten

_SIDE, _SIZE = 13, 10  # inches of the picture, points of its letters
_THUMBNAIL = 30  # points of the longer side of a small picture
LEAST_POINTS = 4  # points, below which there is nothing to arrange


def tsne(vectors: np.ndarray, *, perplexity: float = 30, steps: int = 1000) -> np.ndarray:
    """Places vectors in the plane, neighbours beside each other (van der Maaten & Hinton 2008).

    The descent starts from the two principal components and computes all N^2 distances, so that
    equal vectors get equal places. It takes a second or two for 200 points.

    Args:
        vectors: (N, D), of unit length if their cosine is to count.
        perplexity: the number of neighbours of a point; at most (N - 1) / 3 is used.
        steps: the number of steps of the descent, at least 250.

    Returns:
        float32 (N, 2).

    Raises:
        ValueError: for fewer than 4 points or 2 features.
    """
    from sklearn import manifold

    vectors = np.asarray(vectors, np.float64)
    if vectors.ndim != 2 or len(vectors) < LEAST_POINTS or vectors.shape[1] < 2:
        raise ValueError(
            f"vectors {vectors.shape} must be at least {LEAST_POINTS} of 2 features or more"
        )
    return manifold.TSNE(
        init="pca",
        method="exact",
        learning_rate="auto",
        random_state=0,
        max_iter=steps,
        perplexity=min(perplexity, (len(vectors) - 1) / 3),
    ).fit_transform(vectors)


def plot_names(
    names: Sequence[str], points: np.ndarray, path: pathlib.Path, *, title: str = ""
) -> None:
    """Draws points with their names, which cover one another as little as possible.

    Args:
        names: N names; about 200 can be read.
        points: (N, 2).
        path: the PNG to write.
        title: the title above the picture.

    Raises:
        ValueError: when the points are not (N, 2).
    """
    points = _checked(points, len(names), "name")
    figure, axis = _map(points, title, size=9, margin=0.06)
    figure.draw_without_rendering()  # now pixels are known
    at = axis.transData.transform(points)
    for name, point, (right, up) in zip(names, points, _places(names, at, figure.dpi), strict=True):
        axis.annotate(
            shorten(name),
            point,
            (4 * right, 4 * up),
            textcoords="offset points",
            fontsize=_SIZE,
            ha=("right", "center", "left")[right + 1],
            va=("top", "center", "bottom")[up + 1],
            annotation_clip=False,
        )
    save(figure, path)


def plot_thumbnails(
    images: np.ndarray, points: np.ndarray, path: pathlib.Path, *, title: str = ""
) -> None:
    """Draws a small picture at each point.

    Args:
        images: uint8 (N, H, W, C), C = 1, 3 or 4; a few hundred can be told apart.
        points: (N, 2).
        path: the PNG to write.
        title: the title above the picture.

    Raises:
        ValueError: when the points are not (N, 2).
    """
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    points = _checked(points, len(images), "picture")
    figure, axis = _map(points, title, size=0, margin=0.04)
    zoom = _THUMBNAIL / max(images.shape[1:3])
    for image, point in zip(images, points, strict=True):
        grey = image.shape[-1] == 1
        thumbnail = OffsetImage(
            image[..., 0] if grey else image, zoom=zoom, cmap="gray" if grey else None
        )
        axis.add_artist(AnnotationBbox(thumbnail, (point[0], point[1]), frameon=False))
    save(figure, path)


def plot_points(
    points: Mapping[str, np.ndarray], path: pathlib.Path, *, title: str = "", side: float = 6
) -> None:
    """Draws points of several kinds in one plane, with the same scale on both axes.

    Args:
        points: the points (N, 2) of each kind by its name; later ones are drawn on top.
        path: the PNG to write.
        title: the title above the picture.
        side: the side of the picture in inches.
    """
    figure = new_figure(side, side)
    figure.suptitle(title)
    axis = figure.subplots()
    for (name, each), colour in zip(points.items(), itertools.cycle(COLOURS), strict=False):
        axis.scatter(each[:, 0], each[:, 1], s=6, color=colour, linewidths=0, label=name)
    axis.set_aspect("equal", adjustable="datalim")
    axis.legend(loc="upper right")
    save(figure, path)


def plot_scores(
    scores: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    path: pathlib.Path,
    *,
    span: tuple[float, float],
) -> None:
    """Draws predictions against the true scores, with a panel for each kind.

    A line joins the means within tenths of the range of scores.

    Args:
        scores: the true scores (N,).
        predictions: the predictions (N,) of each kind by its name.
        path: the PNG to write.
        span: the lowest and the highest score.
    """
    figure = new_figure(4.5 * len(predictions), 4)
    axes = figure.subplots(1, len(predictions), squeeze=False)[0]
    jitter = (np.random.default_rng(0).random(len(scores)) - 0.5) * 0.02 * (span[1] - span[0])
    tenth = np.minimum(10 * (scores - span[0]) // (span[1] - span[0]), 9)
    groups = [tenth == number for number in np.unique(tenth)]
    for axis, (name, values) in zip(axes, predictions.items(), strict=True):
        axis.scatter(scores + jitter, values, s=5, color=COLOURS[0], alpha=0.4, linewidths=0)
        means = [(scores[group].mean(), values[group].mean()) for group in groups]
        axis.plot(*zip(*means, strict=True), color=COLOURS[1], marker="o", markersize=4)
        axis.set_xlabel("score")
        axis.set_ylabel(name)
        dress(axis)
    save(figure, path)


def _checked(points: np.ndarray, count: int, thing: str) -> np.ndarray:
    """Returns the points as float64 [count, 2], after checking their shape."""
    points = np.asarray(points, np.float64)
    if points.shape != (count, 2):
        raise ValueError(f"points {points.shape} must be ({count}, 2), one for each {thing}")
    return points


def _map(points: np.ndarray, title: str, *, size: int, margin: float) -> tuple[Any, Any]:
    """Returns a figure and its axis with points whose coordinates have no meaning of their own."""
    figure = new_figure(_SIDE, _SIDE)
    figure.suptitle(title)
    axis = figure.subplots()
    axis.scatter(points[:, 0], points[:, 1], s=size, color=COLOURS[0], linewidths=0)
    axis.margins(margin)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_color("#dddddd")
    return figure, axis


def _places(names: Sequence[str], points: np.ndarray, dpi: float) -> list[tuple[int, int]]:
    """Places each name to the right of its point, or where it covers the fewest other names.

    Args:
        names: N names.
        points: (N, 2), in pixels.
        dpi: pixels per inch.

    Returns:
        For each name the offset from its point to the right and upwards, -1, 0 or 1 each.
    """
    pixel = dpi / 72  # of a typographic point
    sides = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]
    dots = np.concatenate([points - 2 * pixel, points + 2 * pixel], axis=1)
    taken = np.zeros((0, 4))  # left, bottom, right, top
    chosen = []
    for number, name in enumerate(names):
        size = np.array([0.6 * len(shorten(name)), 1.1]) * _SIZE * pixel
        boxes = []
        for side in sides:
            low = points[number] + 4 * pixel * np.array(side) + (np.array(side) - 1) / 2 * size
            boxes.append(np.concatenate([low, low + size]))
        others = np.concatenate([taken, np.delete(dots, number, axis=0)])
        covered = [_overlaps(box, others) for box in boxes]
        best = int(np.argmin(covered))
        chosen.append(sides[best])
        taken = np.concatenate([taken, boxes[best][None]])
    return chosen


def _overlaps(box: np.ndarray, others: np.ndarray) -> int:
    """Counts the boxes that overlap one box."""
    return int(((others[:, :2] < box[2:]) & (box[:2] < others[:, 2:])).all(axis=1).sum())
