"""The report sections of a generative adversarial network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.data import evenly_spaced
from dlcore.launch.stages import stages_section
from dlcore.metrics import nearest
from dlcore.report import Section, picture_section, plots
from dlcore.report.plots.scatter import plot_points
from dlcore.types import Variables

from .judging import pixels

_SHOWN = 10  # images in a row
_ROWS = 4  # of interpolations
_POINTS = 2000
_COMPARED = 10_000  # training images among which the nearest are looked for


def sections(task: Any, variables: Variables) -> list[Section]:
    """Shows stages, samples by class, interpolations, and the nearest training images.

    Args:
        task: the finished `GAN`.
        variables: of both players, in the type that the run computes in.
    """
    made = [stages_section(task.workdir, 3, text="What the same noise becomes")]
    if not task.info.images:
        real = evenly_spaced(task.train, _POINTS).gather
        points = {
            "real": real(np.arange(min(_POINTS, len(task.train))))["point"],
            "drawn": task.draw(variables, task.config.seed, _POINTS),
        }
        made.append(picture_section("Samples", "samples", lambda path: plot_points(points, path)))
        return made
    if task.config.condition:
        made.append(_by_class(task, variables))
    return [*made, _interpolations(task, variables), _neighbours(task, variables)]


def _by_class(task: Any, variables: Variables) -> Section:
    names = task.info.class_names
    drawn = task.draw(variables, task.config.seed, _SHOWN * len(names))
    rows = {name: drawn[number :: len(names)] for number, name in enumerate(names[:20])}
    return picture_section(
        "Classes", "classes", lambda path: plots.plot_rows(rows, path, scale=0.8)
    )


def _interpolations(task: Any, variables: Variables) -> Section:
    """Rows of images on the way from one noise to another, along the sphere (White 2016)."""
    ends = task.noise(jax.random.key(task.config.seed), jnp.arange(2 * _ROWS))
    first, last = np.asarray(ends[::2], np.float64), np.asarray(ends[1::2], np.float64)
    norms = [np.linalg.norm(each, axis=1) for each in (first, last)]
    angle = np.arccos(((first * last).sum(1) / (norms[0] * norms[1])).clip(-1, 1))[:, None, None]
    way = np.linspace(0, 1, _SHOWN)[None, :, None]
    between = np.sin((1 - way) * angle) * first[:, None] + np.sin(way * angle) * last[:, None]
    noise = np.asarray(between / np.sin(angle), np.float32).reshape(_ROWS * _SHOWN, -1)
    labels = np.repeat(task.labels_of(np.arange(_ROWS, dtype=np.int32)), _SHOWN)
    kind = jnp.result_type(*jax.tree.leaves(variables["params"]))
    drawn = jax.jit(
        lambda variables, noise: task.as_pixels(
            task.model.apply(variables, noise.astype(kind), labels, method="generate")
        )
    )(variables, noise)
    images = np.asarray(drawn, np.uint8).reshape(_ROWS, _SHOWN, *drawn.shape[1:])
    rows = {f"{number + 1}": row for number, row in enumerate(images)}
    return picture_section(
        "Interpolations",
        "interpolations",
        lambda path: plots.plot_rows(rows, path, scale=0.8),
        text="Each row goes from one noise to another along the sphere.",
    )


def _neighbours(task: Any, variables: Variables) -> Section:
    """Drawn images above the training images that are nearest to them."""
    drawn = task.draw(variables, task.config.seed, _SHOWN)
    train = evenly_spaced(task.train, _COMPARED)
    images = train.gather(np.arange(len(train)))["image"]
    by = "features of the classifier" if task.judge is not None else "pixels"

    @jax.jit
    def features(images: jax.Array) -> jax.Array:
        found: jax.Array = pixels(images) if task.judge is None else task.judge(images)[0]
        return found

    def features_of(images: np.ndarray) -> np.ndarray:
        size = 500
        parts = [features(images[start : start + size]) for start in range(0, len(images), size)]
        return np.concatenate([np.asarray(part) for part in parts])

    of_train = features_of(images)
    found, distances = nearest(features_of(drawn), of_train)
    # How far training images are from their own nearest, to compare with.
    some = np.arange(0, len(images), max(len(images) // 200, 1))
    apart = []
    for index in some:
        others = np.delete(np.arange(len(images)), index)
        apart.append(nearest(of_train[index][None], of_train[others])[1][0])
    rows = {"drawn": drawn, "nearest": images[found]}
    return picture_section(
        "Nearest in the training set",
        "neighbours",
        lambda path: plots.plot_rows(rows, path),
        text=(
            f"By {by} the median distance is {np.median(distances):.3g}; that of training images "
            f"to their own nearest is {np.median(apart):.3g}. Smaller ones are memorised."
        ),
    )
