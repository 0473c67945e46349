"""YOLO: detection in one pass over a picture (Redmon et al. 2016; Redmon & Farhadi 2017).

Shapes: B pictures, S their side, C channels, G cells along a side, k anchors or predictors of a
cell, p classes, N objects. Boxes are (..., 4) in form "corners" (see `dlcore.boxes`), in pixels.

An object belongs to the cell that contains its centre. Where several objects would belong to the
same predictor, the first one gets it and the others get none.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from dlcore import boxes as geometry
from dlcore.models.cnn.darknet import SLOPE, ConvUnit
from dlcore.models.detection import coding
from dlcore.models.detection.body import Body, passthrough
from dlcore.models.detection.detector import (
    OVERLAP_LOSSES,
    Decoding,
    Objects,
    cells_of,
    objects_of,
)
from dlcore.models.detection.suppression import Detections
from dlcore.nn import Conv, Dense, Dropout
from dlcore.types import Activations, Batch, at_least_float32

# A prediction that overlaps an object so much, whosoever it is, does not count as background.
NEAR = 0.6
# The probability of an object that a predictor starts from, so that the many empty ones do not rule
# the first steps (Lin et al. 2017, section 4.1).
PRIOR = 0.01


class YOLOv2(nn.Module):
    """A detector with k anchors in each cell, each with an object score, a box and classes.

    The last axis of the outputs is p_c, b_y, b_x, b_h, b_w, c_1 ... c_p, before any activation:
    sigmoid(p_c) is the score of an object, trained towards the IoU of the predicted box with the
    object; `coding.decode_cells` decodes the box; the softmax of c are the probabilities of the
    classes, given that there is an object. The net is a body, a 3x3 convolution and a 1x1 one, so
    that it takes pictures of any side that is a multiple of the stride. See `body.passthrough` for
    the finer map that it may see too.

    Attributes:
        body: a network that outputs one map, or with a passthrough two, the finer first.
        num_classes: p.
        shapes: (k, 2), height and width of the anchors, in pixels.
        stride: the number of pixels of a cell.
        features: the number of filters of the 3x3 convolution.
        passthrough: the number of filters that the finer map is brought to, 64 in the authors'
            program; 0 for none.
        box_loss: "squares" of sigmoid(t) and t, weighted by 2 - the share of the picture that the
            object takes, as in the authors' program; or 1 minus an overlap of `boxes.OVERLAPS`.
        box_weight: the weight of the boxes in the loss.
        object_weight: the weight of the object scores of predictors that have an object.
        background_weight: the weight of the object scores of the others.
        focal: the exponent of |target - score| by which the cross-entropy of each object score is
            weighted (Li et al. 2020; with targets 0 and 1 it is the focal loss of Lin et al. 2017);
            with 0 all have the same weight. The authors' program has squared errors.
        decoding: the options of the decoding.
    """

    body: Body
    num_classes: int
    shapes: tuple[tuple[float, float], ...]
    stride: int
    features: int = 96
    passthrough: int = 0
    box_loss: str = "squares"
    box_weight: float = 1.0
    object_weight: float = 5.0
    background_weight: float = 1.0
    focal: float = 0.0
    decoding: Decoding = Decoding()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps images (B, S, S, C) to outputs (B, G, G, k, 5 + p) and the activations by name."""
        maps, activations = self.body(images, train)
        a = dict(activations)
        a["passthrough"] = x = passthrough(maps, self.passthrough, train)
        a["head"] = x = ConvUnit(self.features, 3, name="head")(x, train)
        count, each = len(self.shapes), 5 + self.num_classes

        def bias(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            start = jnp.zeros((count, each), dtype).at[:, 0].set(-math.log(1 / PRIOR - 1))
            return start.reshape(shape)

        small = nn.initializers.normal(0.01)
        x = Conv(count * each, (1, 1), kernel_init=small, bias_init=bias, name="output")(x)
        a["output"] = x = x.reshape(*x.shape[:3], count, each)
        return x, a

    def losses(
        self, images: jax.Array, batch: Batch, key: jax.Array, train: bool = True
    ) -> dict[str, jax.Array]:
        """Returns the terms of the loss of each picture: "place", "object", "background", "class".

        Place and class are summed over the objects, each at the predictor that it belongs to: in
        its cell, the one whose anchor is most like it in shape. The loss of the object score is
        summed over all predictors: its target is the IoU where there is an object, and 0 where
        there is none, except for predictors whose boxes overlap any object by 0.6 or lie to that
        share within a crowd.
        """
        outputs = self(images, train)[0]
        return self.losses_of(outputs, objects_of(batch), images.shape[1])

    def losses_of(self, outputs: jax.Array, objects: Objects, side: int) -> dict[str, jax.Array]:
        """Returns the terms of the loss (B,) of outputs (B, G, G, k, 5 + p), see `losses`."""
        outputs = outputs.astype(at_least_float32(outputs.dtype))
        count, rows, columns, k, each = outputs.shape
        predicted = self.boxes(outputs).reshape(count, -1, 4)
        outputs = outputs.reshape(count, -1, each)
        place, cell, anchor = self.places(objects.boxes, (rows, columns))
        own = objects.real & ~_taken(place, objects.real)

        def at(values: jax.Array) -> jax.Array:
            """Returns those of the predictors that the objects belong to, (B, N, ...)."""
            return jnp.take_along_axis(values, place[..., None], 1)

        box, said = at(predicted), at(outputs)
        overlap = jax.lax.stop_gradient(geometry.iou(box, objects.boxes))
        if self.box_loss == "squares":
            wrong = self._squares(said[..., 1:5], objects.boxes, cell, anchor, side)
        else:
            wrong = OVERLAP_LOSSES[self.box_loss](box, objects.boxes)
        classes = optax.softmax_cross_entropy_with_integer_labels(said[..., 5:], objects.labels)

        scores = outputs[..., 0]
        picture = jnp.arange(count, dtype=jnp.int32)[:, None]
        target = jnp.zeros_like(scores).at[picture, place].max(jnp.where(own, overlap, 0))
        taken = jnp.zeros(scores.shape, bool).at[picture, place].max(own)
        near = _near(jax.lax.stop_gradient(predicted), objects)
        losses = optax.sigmoid_binary_cross_entropy(scores, target)
        if self.focal:
            losses *= jnp.abs(target - jax.nn.sigmoid(scores)) ** self.focal

        def total(values: jax.Array, chosen: jax.Array) -> jax.Array:
            return jnp.where(chosen, values, 0).sum(1)

        return {
            "place": self.box_weight * total(wrong, own),
            "object": self.object_weight * total(losses, taken),
            "background": self.background_weight * total(losses, ~taken & ~near),
            "class": total(classes, own),
        }

    def places(
        self, boxes: jax.Array, size: tuple[int, int]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the predictors that objects (B, N, 4) belong to on a grid of a given size.

        Returns:
            The index of each object's predictor, int32 (B, N); its cell, int32 (B, N, 2); and its
            anchor, int32 (B, N).
        """
        cell = cells_of(boxes, self.stride, size)
        sides = boxes[..., 2:] - boxes[..., :2]
        centred = jnp.concatenate([-sides / 2, sides / 2], -1)
        shapes = jnp.asarray(self.shapes, boxes.dtype)
        anchors = jnp.concatenate([-shapes / 2, shapes / 2], -1)
        alike = geometry.pairwise(geometry.iou, centred, anchors[None])
        anchor = jnp.argmax(alike, -1).astype(jnp.int32)
        place = (cell[..., 0] * size[1] + cell[..., 1]) * len(self.shapes) + anchor
        return place, cell, anchor

    def boxes(self, outputs: jax.Array) -> jax.Array:
        """Returns the boxes (B, G, G, k, 4) of outputs (B, G, G, k, 5 + p)."""
        _, rows, columns, k, _ = outputs.shape
        at = jnp.stack(
            jnp.meshgrid(*(jnp.arange(n, dtype=jnp.int32) for n in (rows, columns)), indexing="ij"),
            -1,
        )
        shapes = jnp.asarray(self.shapes, outputs.dtype)[None, None, None]
        cells = at[None, :, :, None]
        return coding.decode_cells(outputs[..., 1:5], cells, shapes, self.stride)

    def detect(self, images: jax.Array, batch: Batch) -> Detections:
        """Returns the detections in images (B, S, S, C)."""
        return self.decode(self(images)[0], images.shape[1])

    def decode(self, outputs: jax.Array, side: int) -> Detections:
        """Returns the detections of outputs (B, G, G, k, 5 + p).

        The score of each class of a box is the object score times the class's probability.
        """
        outputs = outputs.astype(at_least_float32(outputs.dtype))
        scores = jax.nn.sigmoid(outputs[..., :1]) * jax.nn.softmax(outputs[..., 5:])
        return self.decoding(self.boxes(outputs)[..., None, :], scores, side)

    def _squares(
        self, said: jax.Array, boxes: jax.Array, cell: jax.Array, anchor: jax.Array, side: int
    ) -> jax.Array:
        shapes = jnp.asarray(self.shapes, said.dtype)[anchor]
        middle = (boxes[..., :2] + boxes[..., 2:]) / 2
        offsets = jax.nn.sigmoid(said[..., :2]) - (middle / self.stride - cell.astype(said.dtype))
        sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], coding.SMALLEST)
        sizes = said[..., 2:] - jnp.log(sides / shapes)
        share = geometry.area(boxes) / side**2
        return (2 - share) * ((offsets**2).sum(-1) + (sizes**2).sum(-1))


class YOLOv1(nn.Module):
    """A detector with G x G cells, each with k boxes and confidences and one set of classes.

    The last axis of the outputs, the paper's S x S x (B * 5 + C), is confidence, y, x, h, w of each
    box, then the classes: y and x are in shares of the cell, h and w the square roots of shares of
    the picture; all are linear. The net is a body, a hidden dense layer and a dense layer for the
    outputs, as in the paper.

    Attributes:
        body: a network that outputs one map.
        num_classes: p, the paper's C.
        grid: G, the paper's S, which is 7 there.
        predictors: k, the paper's B.
        hidden: the number of units of the hidden layer; 4,096 in the paper.
        dropout: the share of the hidden units that is dropped in training.
        box_weight: lambda_coord.
        background_weight: lambda_noobj.
        decoding: the options of the decoding.
    """

    body: Body
    num_classes: int
    grid: int = 7
    predictors: int = 2
    hidden: int = 512
    dropout: float = 0.5
    box_weight: float = 5.0
    background_weight: float = 0.5
    decoding: Decoding = Decoding()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Maps images (B, S, S, C) to outputs (B, G, G, 5 k + p) and the activations by name."""
        (x,), activations = self.body(images, train)
        a = dict(activations)
        x = x.reshape(x.shape[0], -1)
        a["hidden"] = x = nn.leaky_relu(Dense(self.hidden, name="hidden")(x), SLOPE)
        x = Dropout(self.dropout)(x, train)
        each = 5 * self.predictors + self.num_classes
        x = Dense(
            self.grid**2 * each,
            kernel_init=nn.initializers.normal(0.01),
            bias_init=nn.initializers.constant(0.25),
            name="output",
        )(x)
        a["output"] = x = x.reshape(-1, self.grid, self.grid, each)
        return x, a

    def losses(
        self, images: jax.Array, batch: Batch, key: jax.Array, train: bool = True
    ) -> dict[str, jax.Array]:
        """Returns the terms of the loss of each picture: "place", "object", "background", "class".

        They are the terms of equation 3. Of the boxes of an object's cell, the one with the highest
        IoU is responsible for it, and its confidence is trained towards that IoU. A cell whose
        middle lies in a difficult object or a crowd is not background.
        """
        outputs = self(images, train)[0]
        return self.losses_of(outputs, objects_of(batch), images.shape[1])

    def losses_of(self, outputs: jax.Array, objects: Objects, side: int) -> dict[str, jax.Array]:
        """Returns the terms of the loss (B,) of outputs (B, G, G, 5 k + p), see `losses`."""
        outputs = outputs.astype(at_least_float32(outputs.dtype))
        count, k, width = len(outputs), self.predictors, side / self.grid
        said = outputs.reshape(count, self.grid**2, -1)
        cell = cells_of(objects.boxes, width, (self.grid, self.grid))
        place = cell[..., 0] * self.grid + cell[..., 1]
        own = objects.real & ~_taken(place, objects.real)

        def at(values: jax.Array) -> jax.Array:
            index = place.reshape(*place.shape, *[1] * (values.ndim - 2))
            return jnp.take_along_axis(values, index, 1)

        boxes = at(self.boxes(outputs, side).reshape(count, -1, k, 4))
        overlap = geometry.pairwise(geometry.iou, objects.boxes[:, :, None], boxes)[:, :, 0]
        overlap = jax.lax.stop_gradient(overlap)
        best = jnp.argmax(overlap, -1).astype(jnp.int32)

        y, x = ((objects.boxes[..., i] + objects.boxes[..., i + 2]) / 2 / width for i in (0, 1))
        sides = (objects.boxes[..., 2:] - objects.boxes[..., :2]) / side
        wanted = jnp.concatenate(
            [jnp.stack([y, x], -1) - cell.astype(y.dtype), jnp.sqrt(sides.clip(0))], -1
        )
        codes = at(said[..., : 5 * k].reshape(count, -1, k, 5))
        code = jnp.take_along_axis(codes, best[..., None, None], 2)[:, :, 0]
        probabilities = at(said[..., 5 * k :])
        one_hot = jax.nn.one_hot(objects.labels, self.num_classes, dtype=said.dtype)

        confidence = said[..., : 5 * k : 5]
        picture = jnp.arange(count, dtype=jnp.int32)[:, None]
        highest = jnp.where(own, overlap.max(-1), 0)
        target = jnp.zeros_like(confidence).at[picture, place, best].max(highest)
        taken = jnp.zeros(confidence.shape, bool).at[picture, place, best].max(own)
        background = ~taken & ~self._ignored(objects, side)[..., None]

        def total(values: jax.Array, chosen: jax.Array) -> jax.Array:
            return jnp.where(chosen, values, 0).reshape(count, -1).sum(1)

        error = (confidence - target) ** 2
        return {
            "place": self.box_weight * total(((code[..., 1:] - wanted) ** 2).sum(-1), own),
            "object": total(error, taken),
            "background": self.background_weight * total(error, background),
            "class": total(((probabilities - one_hot) ** 2).sum(-1), own),
        }

    def boxes(self, outputs: jax.Array, side: int) -> jax.Array:
        """Returns the boxes (B, G, G, k, 4) of outputs (B, G, G, 5 k + p)."""
        k = self.predictors
        codes = outputs[..., : 5 * k].reshape(*outputs.shape[:3], k, 5)
        at = jnp.arange(self.grid, dtype=outputs.dtype)
        width = side / self.grid
        y = (codes[..., 1] + at[None, :, None, None]) * width
        x = (codes[..., 2] + at[None, None, :, None]) * width
        height, wide = codes[..., 3] ** 2 * side, codes[..., 4] ** 2 * side
        return geometry.convert(jnp.stack([x, y, height, wide], -1), "centre", "corners")

    def detect(self, images: jax.Array, batch: Batch) -> Detections:
        """Returns what is found in images (B, S, S, C)."""
        return self.decode(self(images)[0], images.shape[1])

    def decode(self, outputs: jax.Array, side: int) -> Detections:
        """Returns the detections of outputs (B, G, G, 5 k + p).

        The score of each class of a box is its confidence times the probability of its cell.
        """
        outputs = outputs.astype(at_least_float32(outputs.dtype))
        k = self.predictors
        confidence = outputs[..., : 5 * k : 5].clip(0, 1)[..., None]
        scores = confidence * outputs[..., None, 5 * k :].clip(0, 1)
        return self.decoding(self.boxes(outputs, side)[..., None, :], scores, side)

    def _ignored(self, objects: Objects, side: int) -> jax.Array:
        """Returns which cells (B, G * G) have their middle in an ignored object."""
        middle = (jnp.arange(self.grid, dtype=jnp.float32) + 0.5) * (side / self.grid)
        boxes = objects.boxes[..., None]
        inside = [
            (boxes[..., i, :] <= middle[None, None]) & (middle[None, None] < boxes[..., i + 2, :])
            for i in (0, 1)
        ]
        both = inside[0][..., :, None] & inside[1][..., None, :]
        return (both & objects.ignored[..., None, None]).any(1).reshape(len(both), -1)


def _taken(place: jax.Array, real: jax.Array) -> jax.Array:
    """Returns which objects (B, N) have the same index as a real one before them."""
    count = place.shape[1]
    before = jnp.tril(jnp.ones((count, count), bool), -1)
    same = place[:, :, None] == place[:, None, :]
    return (same & before[None] & real[:, None, :]).any(-1)


def _near(predicted: jax.Array, objects: Objects) -> jax.Array:
    """Returns which of R predicted boxes are near an object or in a crowd, bool (B, R)."""
    there = (objects.real | objects.ignored)[:, None]
    overlap = geometry.pairwise(geometry.iou, predicted, objects.boxes)
    inside = geometry.pairwise(geometry.intersection, predicted, objects.boxes)
    within = inside > NEAR * geometry.area(predicted)[..., None]
    return (((overlap > NEAR) & there) | (within & objects.crowds[:, None])).any(-1)
