"""Anchors: boxes of fixed shapes on a grid, their assignment to objects, and samples for a loss.

Shapes: A anchors, N objects, k shapes. A shape is a height and a width in pixels, boxes are (...,
4) in form "corners" (see `dlcore.boxes`). Functions for the time before training use NumPy;
functions for a step use JAX and take one picture, or a batch by `jax.vmap`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import boxes as geometry
from dlcore.errors import InputError

_ROUNDS = 1_000  # of k-means, which ends long before
_STARTS = 10


def shapes_of(sides: Sequence[float], ratios: Sequence[float] = (0.5, 1.0, 2.0)) -> np.ndarray:
    """Returns the shapes, float32 (k, 2), of each side with each ratio (Ren et al. 2015).

    Args:
        sides: the sides of the squares with the same area, in pixels.
        ratios: the ratios of height to width.

    >>> shapes_of([32], [1, 4]).tolist()
    [[32.0, 32.0], [64.0, 16.0]]
    """
    side = np.asarray(sides, np.float64)[:, None]
    root = np.sqrt(np.asarray(ratios, np.float64))
    return np.stack([side * root, side / root], -1).reshape(-1, 2).astype(np.float32)


def grid(size: tuple[int, int], stride: int, shapes: np.ndarray) -> np.ndarray:
    """Returns the anchors of a map, float32 (rows * columns * k, 4), in the order of its outputs.

    An anchor of each shape lies around the middle of each cell, (i + 1/2, j + 1/2) * stride.
    Concatenate the anchors of several levels.

    Args:
        size: the rows and columns of the map.
        stride: the number of pixels from one cell to the next.
        shapes: the shapes (k, 2).

    >>> grid((1, 2), 8, np.array([[4.0, 2.0]])).tolist()
    [[2.0, 3.0, 6.0, 5.0], [2.0, 11.0, 6.0, 13.0]]
    """
    y, x = ((np.arange(count) + 0.5) * stride for count in size)
    middle = np.stack(np.meshgrid(y, x, indexing="ij"), -1)[:, :, None]
    half = np.asarray(shapes, np.float64) / 2
    return np.concatenate([middle - half, middle + half], -1).reshape(-1, 4).astype(np.float32)


class Fitted(NamedTuple):
    """Shapes that were fitted to the objects of a data set.

    Attributes:
        shapes: float32 (k, 2), the smallest area first.
        mean_iou: the mean over objects of the IoU with the best shape around the same centre.
        recall: the share of the objects for which this IoU is at least 1/2.
    """

    shapes: np.ndarray
    mean_iou: float
    recall: float


def fit(sizes: np.ndarray, count: int, *, seed: int = 0) -> Fitted:
    """Fits shapes to objects by k-means under the distance 1 - IoU (Redmon & Farhadi 2017).

    A box and a shape are compared around the same centre, and a cluster's shape is the mean of its
    members. Of ten starts, drawn as k-means++ does by that distance, the best mean IoU wins.

    Args:
        sizes: (N, 2), height and width of each object, in pixels; objects without area are left
            out.
        count: k.
        seed: the seed of the starts.

    Raises:
        InputError: when there are fewer than k different sizes.

    >>> fit(np.array([[10.0, 10], [10, 10], [20, 40]]), 2).shapes.tolist()
    [[10.0, 10.0], [20.0, 40.0]]
    """
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    sizes = sizes[(sizes > 0).all(1)]
    different = len(np.unique(sizes, axis=0))
    if not 1 <= count <= different:
        raise InputError(
            f"{count} anchors cannot be fitted to objects of {different} different sizes; give a "
            f"number from 1 to {different}"
        )
    rng = np.random.default_rng(seed)
    best = max((_k_means(sizes, count, rng) for _ in range(_STARTS)), key=lambda one: one.mean_iou)
    return best._replace(shapes=best.shapes[np.argsort(best.shapes.prod(1), kind="stable")])


def fit_each(sizes: np.ndarray, counts: Sequence[int], *, seed: int = 0) -> dict[int, Fitted]:
    """Returns the `fit` for each of some k, to choose one by its recall; raises as `fit` does."""
    return {count: fit(sizes, count, seed=seed) for count in counts}


def render(fits: dict[int, Fitted]) -> str:
    """Returns a table of the results of `fit_each`, with a line for each k.

    >>> print(render(fit_each(np.array([[10.0, 10], [20, 40]]), [1, 2])))
      k  mean IoU  recall at 0.5  height x width
      1     0.368          0.0 %  15x25
      2     1.000        100.0 %  10x10 20x40
    """
    lines = ["  k  mean IoU  recall at 0.5  height x width"]
    for count, (shapes, mean_iou, recall) in fits.items():
        text = " ".join(f"{height:.0f}x{width:.0f}" for height, width in shapes)
        lines.append(f"{count:3d}  {mean_iou:8.3f}  {100 * recall:11.1f} %  {text}")
    return "\n".join(lines)


def _k_means(sizes: np.ndarray, count: int, rng: np.random.Generator) -> Fitted:
    shapes = sizes[rng.integers(len(sizes), size=1)]
    while len(shapes) < count:
        gap = (1 - _shape_iou(sizes, shapes).max(1)).clip(0)
        shapes = np.concatenate([shapes, sizes[[rng.choice(len(sizes), p=gap / gap.sum())]]])
    nearest = None
    for _ in range(_ROUNDS):
        overlap = _shape_iou(sizes, shapes)
        before, nearest = nearest, overlap.argmax(1)
        if before is not None and (nearest == before).all():
            break
        for k in range(count):
            members = sizes[nearest == k]
            # An empty cluster goes to the object that fits worst.
            shapes[k] = members.mean(0) if len(members) else sizes[overlap.max(1).argmin()]
    best = _shape_iou(sizes, shapes).max(1)
    return Fitted(shapes.astype(np.float32), float(best.mean()), float((best >= 0.5).mean()))


def _shape_iou(sizes: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Returns the IoU (N, k) of boxes around the same centre."""
    shared = np.minimum(sizes[:, None], shapes[None]).prod(-1)
    return shared / (sizes.prod(-1)[:, None] + shapes.prod(-1)[None] - shared)


class Assignment(NamedTuple):
    """The assignment of A anchors to objects.

    Attributes:
        matched: int32 (A,), the object of a positive anchor; for other anchors the object with the
            highest IoU.
        positive: bool (A,), the anchors that must find their object.
        negative: bool (A,), the anchors that must find nothing. An anchor that is neither has no
            part in the loss.
    """

    matched: jax.Array
    positive: jax.Array
    negative: jax.Array


def assign(
    anchors: jax.Array,
    boxes: jax.Array,
    mask: jax.Array,
    *,
    positive: float = 0.7,
    negative: tuple[float, float] = (0.0, 0.3),
    best_of_each: bool = True,
    ignored: jax.Array | None = None,
) -> Assignment:
    """Assigns anchors to the objects of one picture by their IoU (Ren et al. 2015).

    An anchor is positive for the object with its highest IoU if this is at least `positive`, and
    negative if its highest IoU lies in the range `negative`. In addition each object gets its best
    anchor, however low the IoU, unless it is 0: in the order of their highest IoU, objects take the
    best of the anchors that no earlier object took in this way. So two objects with the same best
    anchor have one each. The usual rule, by which anchors keep the object of their own highest IoU,
    does not ensure this. Other anchors with exactly an object's highest IoU are then positive for
    it too. Ties go to the lower index.

    Args:
        anchors: (A, 4), or the proposals of a first stage.
        boxes: (N, 4).
        mask: bool (N,), false for padding.
        positive: the least IoU of a positive anchor.
        negative: the range [low, high) of the highest IoU of negative anchors.
        best_of_each: whether objects get their best anchor even below `positive`.
        ignored: bool (N,), objects that are neither right nor wrong to find, such as crowds and
            difficult ones; they get no anchors, and an anchor with half of its area or more inside
            one is not negative.

    >>> anchors = jnp.array([[0.0, 0, 4, 4], [0, 4, 4, 8], [8, 8, 9, 9]])
    >>> found = assign(anchors, jnp.array([[0.0, 0, 4, 6]]), jnp.array([True]))
    >>> found.positive.tolist(), found.negative.tolist()
    ([True, False, False], [False, True, True])
    """
    real = mask if ignored is None else mask & ~ignored
    overlap = jnp.where(real[:, None], geometry.pairwise(geometry.iou, boxes, anchors), 0)
    if not len(boxes):
        nothing = jnp.zeros(len(anchors), bool)
        return Assignment(nothing.astype(jnp.int32), nothing, ~nothing & (negative[0] <= 0))
    highest, owner = overlap.max(0), jnp.argmax(overlap, 0).astype(jnp.int32)
    chosen = (highest >= positive) & (highest > 0)
    if best_of_each:
        forced = _best_of_each(overlap)
        owner = jnp.where(forced >= 0, forced, owner)
        chosen |= forced >= 0
    unchosen = ~chosen & (highest >= negative[0]) & (highest < negative[1])
    if ignored is not None:
        inside = geometry.pairwise(geometry.intersection, boxes, anchors)
        within = inside >= 0.5 * geometry.area(anchors)[None]
        unchosen &= ~(within & (mask & ignored)[:, None]).any(0)
    return Assignment(owner, chosen, unchosen)


def _best_of_each(overlap: jax.Array) -> jax.Array:
    """Returns the object that takes each anchor as its best, or -1: int32 (A,), of IoUs (N, A)."""
    highest = overlap.max(1)

    def take(taken: jax.Array, one: jax.Array) -> tuple[jax.Array, None]:
        free = jnp.where(taken < 0, overlap[one], 0)
        best = jnp.argmax(free)
        return taken.at[best].set(jnp.where(free[best] > 0, one, taken[best])), None

    order = jnp.argsort(-highest, stable=True).astype(jnp.int32)
    taken = jax.lax.scan(take, jnp.full(overlap.shape[1], -1, jnp.int32), order)[0]
    tied = jnp.where((overlap == highest[:, None]) & (overlap > 0), overlap, 0)
    by_tie = jnp.where(tied.max(0) > 0, jnp.argmax(tied, 0).astype(jnp.int32), -1)
    return jnp.where(taken >= 0, taken, by_tie)


class Sample(NamedTuple):
    """A part of the anchors of one picture.

    Attributes:
        places: int32 (S,), the indices of the anchors.
        positive: bool (S,), true for positive anchors.
        mask: bool (S,), false for entries for which no anchor is left.
    """

    places: jax.Array
    positive: jax.Array
    mask: jax.Array


def sample(
    key: jax.Array, assignment: Assignment, *, count: int, positive_share: float = 0.5
) -> Sample:
    """Draws anchors of one picture at random, so that negatives do not dominate the loss.

    At most the given share is positive; the rest is filled with negatives (Girshick 2015; Ren et
    al. 2015).

    Args:
        key: the random key.
        assignment: the assignment of the A anchors.
        count: S, at most A.
        positive_share: the largest share of positive anchors.
    """
    order = jax.random.permutation(key, len(assignment.positive)).astype(jnp.int32)
    positive, negative = assignment.positive[order], assignment.negative[order]
    positive &= jnp.cumsum(positive, dtype=jnp.int32) <= round(count * positive_share)
    left = count - positive.sum(dtype=jnp.int32)
    negative &= jnp.cumsum(negative, dtype=jnp.int32) <= left
    # Of equals, `top_k` takes the first: first the positive, then the negative, then the others.
    rank, places = jax.lax.top_k(jnp.where(positive, 2, jnp.where(negative, 1, 0)), count)
    return Sample(order[places], rank == 2, rank > 0)
