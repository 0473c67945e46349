"""Fast R-CNN (Girshick 2015): one pass over a picture, then a look at each candidate box.

Shapes: B pictures, S their side, C channels, K classes, R candidates, N objects, h w F a map.
Boxes are (..., 4) in form "corners" (see `dlcore.boxes`). The label K means background. `detector`
has the parts that detectors share. A batch has "candidates" float32 (B, R, 4) and
"candidates_mask" bool (B, R) here.

No candidate has to find a difficult object or a crowd, and a candidate with half of its area or
more inside one does not count as background (`anchors.assign`). Pictures without an object are
trained on: everything in them is background.
"""

import dataclasses
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from dlcore import boxes as geometry
from dlcore.models.detection import anchors, coding
from dlcore.models.detection.body import Body
from dlcore.models.detection.detector import Decoding, objects_of
from dlcore.models.detection.pyramid import level_of
from dlcore.models.detection.suppression import Detections
from dlcore.nn import Dense
from dlcore.nn.regions import roi_align, roi_pool
from dlcore.parallel import row_keys
from dlcore.types import Activations, Batch, at_least_float32

Pooling = Literal["align", "pool"]
POOLINGS = {"align": roi_align, "pool": roi_pool}
# Of t_y, t_x, t_h, t_w: the targets are divided by these, so that all have about variance 1.
DEVIATIONS: coding.Deviations = (0.1, 0.1, 0.2, 0.2)


class RegionOutputs(NamedTuple):
    """The outputs of a head for R regions.

    Attributes:
        logits: (B, R, K + 1), the background last.
        codes: (B, R, K, 4), the box of each class relative to the region.
    """

    logits: jax.Array
    codes: jax.Array

    def named(self) -> Activations:
        """Returns both by their names among the activations."""
        return {"class": self.logits, "place": self.codes}


class RegionHead(nn.Module):
    """A head with two hidden layers on a region's pooled features, for its class and its boxes.

    Attributes:
        num_classes: K.
        strides: the strides of the maps, the finest first.
        width: the width of the hidden layers; the paper's networks have 4,096.
        pooling: "pool", as in the paper, or "align".
        size: the numbers of rows and columns of the pooled features.
    """

    num_classes: int
    strides: tuple[int, ...]
    width: int = 256
    pooling: Pooling = "align"
    size: tuple[int, int] = (7, 7)

    @nn.compact
    def __call__(self, maps: tuple[jax.Array, ...], boxes: jax.Array) -> RegionOutputs:
        """Maps features (B, h, w, F), the finest first, and boxes (B, R, 4) to `RegionOutputs`.

        With several levels every box is pooled from all of them, and the level for its size is
        taken.
        """
        pool = POOLINGS[self.pooling]
        pooled = [
            pool(features, boxes, stride=stride, size=self.size)
            for features, stride in zip(maps, self.strides, strict=True)
        ]
        x = pooled[0]
        level = level_of(boxes, self.strides)[..., None, None, None]
        for number, other in enumerate(pooled[1:], 1):
            x = jnp.where(level == number, other, x)
        x = x.reshape(*x.shape[:2], -1)
        for name in ("hidden1", "hidden2"):
            x = nn.relu(Dense(self.width, name=name)(x))
        logits = Dense(
            self.num_classes + 1, kernel_init=nn.initializers.normal(0.01), name="classes"
        )(x)
        codes = Dense(
            4 * self.num_classes, kernel_init=nn.initializers.normal(0.001), name="places"
        )(x)
        return RegionOutputs(logits, codes.reshape(*codes.shape[:2], self.num_classes, 4))


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The options by which a step samples candidates of a picture.

    Attributes:
        count: the number of candidates; the paper has 64 for each of two pictures.
        positive_share: the largest share of candidates that hold an object.
        positive: the least IoU of these with an object.
        background: the range [low, high) of the highest IoU of the other candidates; the lower end
            leaves out easy ones (Fast R-CNN; Faster R-CNN has 0). In pictures without an object it
            is 0.
    """

    count: int = 64
    positive_share: float = 0.25
    positive: float = 0.5
    background: tuple[float, float] = (0.1, 0.5)


class RegionTargets(NamedTuple):
    """Regions to learn from, S of each picture.

    Attributes:
        boxes: (B, S, 4).
        labels: int32 (B, S), K for the background.
        codes: (B, S, 4), the object's box relative to the region.
        mask: bool (B, S), false for entries for which no candidate is left.
    """

    boxes: jax.Array
    labels: jax.Array
    codes: jax.Array
    mask: jax.Array


def region_targets(
    key: jax.Array,
    boxes: jax.Array,
    mask: jax.Array,
    batch: Batch,
    num_classes: int,
    sampling: Sampling,
) -> RegionTargets:
    """Draws the regions of a step from candidates and the objects themselves.

    Args:
        key: the random key.
        boxes: (B, R, 4), the candidates.
        mask: bool (B, R), true for candidates that exist.
        batch: a batch with the objects.
        num_classes: K.
        sampling: the options of the draw.
    """
    found = objects_of(batch)

    def of_one(
        key: jax.Array,
        boxes: jax.Array,
        mask: jax.Array,
        objects: jax.Array,
        real: jax.Array,
        labels: jax.Array,
        ignored: jax.Array,
    ) -> RegionTargets:
        boxes = jnp.concatenate([boxes, objects])
        mask = jnp.concatenate([mask, real])
        low, high = sampling.background
        found = anchors.assign(
            boxes,
            objects,
            real | ignored,
            positive=sampling.positive,
            negative=(0.0, high),
            best_of_each=False,
            ignored=ignored,
        )
        near = geometry.iou(boxes, objects[found.matched])
        background = found.negative & ((near >= low) | ~real.any())
        found = found._replace(positive=found.positive & mask, negative=background & mask)
        count = min(sampling.count, len(boxes))
        places, positive, there = anchors.sample(
            key, found, count=count, positive_share=sampling.positive_share
        )
        chosen, owner = boxes[places], found.matched[places]
        codes = coding.encode(objects[owner], chosen, deviations=DEVIATIONS)
        return RegionTargets(chosen, jnp.where(positive, labels[owner], num_classes), codes, there)

    targets: RegionTargets = jax.vmap(of_one)(
        row_keys(key, len(boxes)),
        boxes,
        mask,
        found.boxes,
        found.real,
        found.labels,
        found.ignored,
    )
    return jax.lax.stop_gradient(targets)


def candidate_targets(
    key: jax.Array, batch: Batch, num_classes: int, sampling: Sampling
) -> RegionTargets:
    """Draws the regions of a step from the candidates of a batch, see `region_targets`."""
    boxes, mask = batch["candidates"], batch["candidates_mask"]
    return region_targets(key, boxes, mask, batch, num_classes, sampling)


def region_losses(outputs: RegionOutputs, targets: RegionTargets) -> dict[str, jax.Array]:
    """Returns the two terms of the multi-task loss of each picture (equation 1), (B,) each.

    "class" is the mean log loss of its regions. "place" is the smooth L1 loss of the boxes of their
    true classes, summed over the four codes and the regions that hold an object, divided by the
    number of all regions.
    """
    logits, codes = (x.astype(at_least_float32(x.dtype)) for x in outputs)
    labels, mask = targets.labels, targets.mask
    num_classes = codes.shape[2]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    own = jnp.minimum(labels, num_classes - 1)[..., None, None]
    code = jnp.take_along_axis(codes, own, 2)[:, :, 0]
    distance = smooth_l1(code - targets.codes).sum(-1)
    return {
        "class": share(losses, mask, mask),
        "place": share(distance, mask & (labels < num_classes), mask),
    }


def share(values: jax.Array, chosen: jax.Array, counted: jax.Array) -> jax.Array:
    """Returns the sum of the chosen values (B, S) divided by the number of counted ones, (B,)."""
    count = counted.sum(1, dtype=values.dtype)
    return jnp.where(chosen, values, 0).sum(1) / jnp.maximum(count, 1)


def smooth_l1(x: jax.Array, beta: float = 1.0) -> jax.Array:
    """Returns x^2 / (2 beta) where |x| < beta, else |x| - beta / 2 (equation 3).

    >>> smooth_l1(jnp.array([0.5, -2.0])).tolist()
    [0.125, 1.5]
    """
    return optax.huber_loss(x, delta=beta) / beta


def decode_regions(
    outputs: RegionOutputs, boxes: jax.Array, mask: jax.Array, side: int, decoding: Decoding
) -> Detections:
    """Returns the detections of B pictures: the box of each class of each region, suppressed.

    Args:
        outputs: the outputs for R regions.
        boxes: (B, R, 4), the regions.
        mask: bool (B, R), true for regions that exist.
        side: S, at which boxes are clipped.
        decoding: the options of the decoding.
    """
    logits, codes = (x.astype(at_least_float32(x.dtype)) for x in outputs)
    scores = jnp.where(mask[..., None], jax.nn.softmax(logits)[..., :-1], -jnp.inf)
    placed = coding.decode(codes, boxes[:, :, None], deviations=DEVIATIONS)
    return decoding(placed, scores, side)


class FastRCNN(nn.Module):
    """Fast R-CNN on the last map of a body.

    Attributes:
        body: the network that outputs the map.
        regions: the head for the regions.
        sampling: the sampling of regions in a step.
        decoding: the options of the decoding.
    """

    body: Body
    regions: RegionHead
    sampling: Sampling = Sampling()
    decoding: Decoding = Decoding()

    def __call__(
        self, images: jax.Array, train: bool = False, boxes: jax.Array | None = None
    ) -> tuple[RegionOutputs, Activations]:
        """Maps images (B, S, S, C) to the outputs for regions, and the activations by name.

        Args:
            images: the pictures.
            train: whether this is training.
            boxes: (B, R, 4), the regions; None means the whole picture.
        """
        maps, activations = self.body(images, train)
        if boxes is None:
            boxes = whole_pictures(images)
        outputs = self.regions(maps, boxes)
        return outputs, {**activations, **outputs.named()}

    def losses(
        self, images: jax.Array, batch: Batch, key: jax.Array, train: bool = True
    ) -> dict[str, jax.Array]:
        """Returns the terms of the loss of each picture, (B,) each, see `region_losses`."""
        targets = candidate_targets(key, batch, self.regions.num_classes, self.sampling)
        return region_losses(self(images, train, targets.boxes)[0], targets)

    def detect(self, images: jax.Array, batch: Batch) -> Detections:
        """Returns the detections in images (B, S, S, C) among the candidates of a batch."""
        boxes = batch["candidates"]
        outputs, _ = self(images, boxes=boxes)
        return decode_regions(
            outputs, boxes, batch["candidates_mask"], images.shape[1], self.decoding
        )


def whole_pictures(images: jax.Array) -> jax.Array:
    """Returns the box around each picture (B, S, S, C), (B, 1, 4)."""
    box = jnp.array([0, 0, *images.shape[1:3]], jnp.float32)
    return jnp.broadcast_to(box, (len(images), 1, 4))
