"""Parts that all detectors share. Shapes: B pictures, S their side, C channels, N objects.

A detector is a Linen module with two methods beside its forward pass:
  - `losses(images, batch, key, train)` returns the terms of the loss of each picture, (B,) each;
  - `detect(images, batch)` returns `Detections` (or `Landmarks`), all in one compiled call.

A batch is as in `dlcore.data.detection`, with boxes in pixels of the square. Difficult objects and
crowds are neither right nor wrong to find: no prediction has to find them, and predictions on them
do not count as background.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlcore import boxes as geometry
from dlcore.models.detection.suppression import Comparison, Detections, suppress
from dlcore.types import Batch


class Objects(NamedTuple):
    """The objects of B pictures.

    Attributes:
        boxes: float32 (B, N, 4).
        labels: int32 (B, N).
        real: bool (B, N), true for objects that are to be found.
        ignored: bool (B, N), true for difficult objects and crowds.
        crowds: bool (B, N), boxes around many objects.
    """

    boxes: jax.Array
    labels: jax.Array
    real: jax.Array
    ignored: jax.Array
    crowds: jax.Array


def objects_of(batch: Batch) -> Objects:
    """Returns the objects of a batch."""
    there = jnp.asarray(batch["boxes_mask"])
    nothing = jnp.zeros_like(there)
    crowds = there & batch.get("crowd", nothing)
    ignored = crowds | (there & batch.get("difficult", nothing))
    boxes, labels = jnp.asarray(batch["boxes"]), jnp.asarray(batch["labels"])
    return Objects(boxes, labels, there & ~ignored, ignored, crowds)


def largest(objects: Objects) -> tuple[jax.Array, jax.Array]:
    """Returns the index of the largest real object of each picture (B,), and whether it exists.

    Among equal areas it is the first.
    """
    area = jnp.where(objects.real, geometry.area(objects.boxes), -1)
    return jnp.argmax(area, axis=1).astype(jnp.int32), objects.real.any(1)


def of_place(values: jax.Array, place: jax.Array) -> jax.Array:
    """Returns values[b, place[b]] of values (B, N, ...) for indices (B,)."""
    index = place.reshape(-1, *[1] * (values.ndim - 1))
    return jnp.take_along_axis(values, index, 1)[:, 0]


def cells_of(boxes: jax.Array, stride: float, size: tuple[int, int]) -> jax.Array:
    """Returns row and column of the cell with the centre of each box (..., 4), int32 (..., 2).

    Args:
        boxes: the boxes, in pixels.
        stride: the number of pixels of a cell.
        size: the numbers of rows and columns; centres on the far edges belong to the last ones.
    """
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    cell = jnp.floor(middle / stride).astype(jnp.int32)
    return jnp.stack([cell[..., i].clip(0, size[i] - 1) for i in (0, 1)], -1)


def _overlap_loss(name: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    overlap = geometry.OVERLAPS[name]
    return lambda predicted, boxes: 1 - overlap(predicted, boxes)


# The losses of a box, 1 less the overlap with the object's; "squares" are those of its codes.
OVERLAP_LOSSES = {name: _overlap_loss(name) for name in geometry.OVERLAPS}
BOX_LOSSES = ("squares", *OVERLAP_LOSSES)


@dataclasses.dataclass(frozen=True)
class Decoding:
    """The options by which detections are made from a network's outputs.

    Attributes:
        score_threshold: the threshold that the score of a detection must pass.
        iou_threshold: the overlap at which the weaker of two boxes of a class is dropped.
        comparison: ">" or ">=", for both thresholds, see `suppress`.
        candidates: the number of best-scored boxes of each picture that take part.
        most: the largest number of detections of a picture.
    """

    score_threshold: float = 0.001
    iou_threshold: float = 0.5
    comparison: Comparison = ">"
    candidates: int = 300
    most: int = 100

    def __call__(self, boxes: jax.Array, scores: jax.Array, side: int) -> Detections:
        """Returns the detections that suppression keeps of boxes with a score for each class.

        Args:
            boxes: (B, ..., p, 4), or (B, ..., 1, 4) where all classes have the same boxes.
            scores: (B, ..., p), the scores for the p classes.
            side: S, at which boxes are clipped.
        """
        count, classes = len(boxes), scores.shape[-1]
        labels = jnp.broadcast_to(jnp.arange(classes, dtype=jnp.int32), scores.shape)
        each = jnp.broadcast_to(geometry.clip(boxes, side, side), (*scores.shape, 4))
        scores = scores.reshape(count, -1)
        return suppress(
            each.reshape(count, -1, 4),
            scores,
            labels.reshape(count, -1),
            score_threshold=self.score_threshold,
            iou_threshold=self.iou_threshold,
            comparison=self.comparison,
            candidates=min(self.candidates, scores.shape[1]),
            most=self.most,
        )
