"""Faster R-CNN (Ren et al. 2015): Fast R-CNN with a network that proposes the regions itself.

Shapes: B pictures, S their side, C channels, K classes, A anchors of all levels, k shapes of each
level, N objects, h w F a map. The rules for difficult objects, crowds and pictures without an
object are the same as in `fast_rcnn`.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlcore import boxes as geometry
from dlcore.errors import InputError
from dlcore.losses.binary import binary_cross_entropy
from dlcore.models.detection import anchors, coding
from dlcore.models.detection.body import Body
from dlcore.models.detection.detector import Decoding, objects_of
from dlcore.models.detection.fast_rcnn import (
    RegionHead,
    RegionOutputs,
    Sampling,
    decode_regions,
    region_losses,
    region_targets,
    share,
    smooth_l1,
)
from dlcore.models.detection.pyramid import Pyramid
from dlcore.models.detection.suppression import Detections, suppress
from dlcore.nn import Conv
from dlcore.parallel import row_keys
from dlcore.types import Activations, Batch, at_least_float32

# The name of the pyramid in a detector, under which its parameters lie.
NECK = "neck"

_BETA = 1 / 9  # of the proposals' smooth L1 loss
_SMALLEST = 1.0  # side of a proposal in pixels


class ProposalOutputs(NamedTuple):
    """The outputs of the proposal network for each anchor.

    Attributes:
        logits: (B, A), the logits of holding an object.
        codes: (B, A, 4), the object's box relative to the anchor.
    """

    logits: jax.Array
    codes: jax.Array


class ProposalHead(nn.Module):
    """A 3x3 convolution, and 1x1 ones for whether an anchor holds an object and for its box.

    Attributes:
        shapes: k, the number of anchor shapes of each level.
        features: the filters of the 3x3 convolution; the paper's networks have 256 and 512.
    """

    shapes: int
    features: int = 128

    @nn.compact
    def __call__(self, maps: tuple[jax.Array, ...]) -> ProposalOutputs:
        """Maps features (B, h, w, F) of all levels, with the same filters, to `ProposalOutputs`."""
        init = nn.initializers.normal(0.01)
        hidden = Conv(self.features, (3, 3), padding="same", kernel_init=init, name="hidden")
        classes = Conv(self.shapes, (1, 1), kernel_init=init, name="classes")
        places = Conv(4 * self.shapes, (1, 1), kernel_init=init, name="places")
        logits, codes = [], []
        for features in maps:
            x = nn.relu(hidden(features))
            logits.append(classes(x).reshape(len(x), -1))
            codes.append(places(x).reshape(len(x), -1, 4))
        return ProposalOutputs(jnp.concatenate(logits, 1), jnp.concatenate(codes, 1))


@dataclasses.dataclass(frozen=True)
class ProposalRules:
    """The options by which proposals are made and learned.

    Attributes:
        sample: the number of anchors of each picture that a step looks at, half of them positive if
            there are enough.
        positive: the least IoU with an object of a positive anchor; the best anchor of each object
            is positive too.
        negative: the bound below which the highest IoU makes an anchor negative.
        iou_threshold: the overlap above which the weaker of two proposals is dropped.
        candidates: the number of best-scored anchors of each picture that take part in suppression;
            the paper's pictures of 600 x 1,000 pixels have 6,000.
        train: the number of proposals of each picture in training; the paper has 2,000.
        detect: the number of proposals of each picture in detection; the paper has 300.
    """

    sample: int = 256
    positive: float = 0.7
    negative: float = 0.3
    iou_threshold: float = 0.7
    candidates: int = 600
    train: int = 200
    detect: int = 100


def proposal_losses(
    key: jax.Array, outputs: ProposalOutputs, grid: jax.Array, batch: Batch, rules: ProposalRules
) -> dict[str, jax.Array]:
    """Returns the two terms of the proposals' loss of each picture (equation 1), (B,) each.

    "objectness" is the mean log loss of the sampled anchors; "proposal" is the smooth L1 loss of
    the positive ones, summed over the four codes. Both are divided by the number of sampled
    anchors. The paper calls this a possible simplification of its own balance of the two, which
    depends on the size of the map. Anchors that cross the edge take part; the paper leaves them out
    of training, but in small pictures most anchors cross it.

    Args:
        key: the random key.
        outputs: the outputs for A anchors.
        grid: (A, 4), the anchors.
        batch: a batch with the objects.
        rules: the rules for which anchors count.
    """
    logits, codes = (x.astype(at_least_float32(x.dtype)) for x in outputs)
    objects = objects_of(batch)

    def of_one(
        key: jax.Array,
        logits: jax.Array,
        codes: jax.Array,
        objects: jax.Array,
        real: jax.Array,
        ignored: jax.Array,
    ) -> tuple[jax.Array, ...]:
        found = anchors.assign(
            grid,
            objects,
            real | ignored,
            positive=rules.positive,
            negative=(0.0, rules.negative),
            ignored=ignored,
        )
        places, positive, there = anchors.sample(key, found, count=min(rules.sample, len(grid)))
        losses = binary_cross_entropy(logits[places][None], positive[None])[0]
        wanted = coding.encode(objects[found.matched[places]], grid[places])
        distance = smooth_l1(codes[places] - wanted, _BETA).sum(-1)
        return losses, distance, positive, there

    losses, distance, positive, there = jax.vmap(of_one)(
        row_keys(key, len(logits)),
        logits,
        codes,
        objects.boxes,
        objects.real,
        objects.ignored,
    )
    return {
        "objectness": share(losses, there, there),
        "proposal": share(distance, positive, there),
    }


def propose(
    outputs: ProposalOutputs, grid: jax.Array, side: int, rules: ProposalRules, most: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the proposals of each picture, the best first, and which of them exist.

    Boxes are clipped at the edge of the picture, boxes with a side below a pixel are dropped, and
    of overlapping boxes the best one is kept. No gradient flows through them.

    Args:
        outputs: the outputs for A anchors.
        grid: (A, 4), the anchors.
        side: S.
        rules: the rules of the suppression.
        most: M, the number of proposals.

    Returns:
        Boxes (B, M, 4) and bool (B, M).
    """
    logits, codes = (jax.lax.stop_gradient(x.astype(at_least_float32(x.dtype))) for x in outputs)
    boxes = geometry.clip(coding.decode(codes, grid[None]), side, side)
    large = (boxes[..., 2:] - boxes[..., :2] >= _SMALLEST).all(-1)
    found = suppress(
        boxes,
        jnp.where(large, logits, -jnp.inf),
        jnp.zeros(logits.shape, jnp.int32),
        iou_threshold=rules.iou_threshold,
        candidates=min(rules.candidates, logits.shape[1]),
        most=most,
        per_class=False,
    )
    return found.boxes, found.mask


class FasterRCNN(nn.Module):
    """Faster R-CNN on one map of a body or on a pyramid of several.

    Attributes:
        body: the network that outputs the maps, the finest first.
        regions: the head for the regions.
        shapes: the anchor shapes (k, 2) of each map, as nested tuples; see `shapes_by_level`.
        width: the width of the convolution that proposes.
        pyramid: the width of a feature pyramid; None for none.
        rules: the rules of the proposals.
        sampling: the sampling of regions in a step.
        decoding: the options of the decoding.
    """

    body: Body
    regions: RegionHead
    shapes: tuple[tuple[tuple[float, float], ...], ...]
    width: int = 128
    pyramid: int | None = None
    rules: ProposalRules = ProposalRules()
    sampling: Sampling = Sampling(background=(0.0, 0.5))
    decoding: Decoding = Decoding()

    def setup(self) -> None:
        self.proposals = ProposalHead(len(self.shapes[0]), self.width)
        if self.pyramid is not None:
            self.neck = Pyramid(self.pyramid)

    def features(
        self, images: jax.Array, train: bool = False
    ) -> tuple[tuple[jax.Array, ...], Activations]:
        """Maps images (B, S, S, C) to the maps (B, h, w, F) that both networks share."""
        maps, activations = self.body(images, train)
        if self.pyramid is not None:
            maps = self.neck(maps)
            activations |= {f"pyramid{level}": x for level, x in enumerate(maps)}
        return maps, activations

    def grid(self, maps: tuple[jax.Array, ...]) -> jax.Array:
        """Returns the anchors (A, 4) of all levels."""
        levels = zip(maps, self.regions.strides, self.shapes, strict=True)
        return jnp.concatenate(
            [
                anchors.grid((features.shape[1], features.shape[2]), stride, np.asarray(shapes))
                for features, stride, shapes in levels
            ]
        )

    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[tuple[RegionOutputs, jax.Array, jax.Array], Activations]:
        """Maps images (B, S, S, C) to the outputs for the proposed regions.

        Returns:
            (`RegionOutputs`, the proposals (B, M, 4), and which of them exist, bool (B, M)), and
            the activations by name.
        """
        maps, activations = self.features(images, train)
        proposed = self.proposals(maps)
        activations |= {"objectness": proposed.logits, "proposal": proposed.codes}
        boxes, mask = propose(
            proposed, self.grid(maps), images.shape[1], self.rules, self.rules.detect
        )
        outputs = self.regions(maps, boxes)
        return (outputs, boxes, mask), {**activations, **outputs.named()}

    def detect(self, images: jax.Array, batch: Batch) -> Detections:
        """Returns the detections in images (B, S, S, C), in one pass."""
        (outputs, boxes, mask), _ = self(images)
        return decode_regions(outputs, boxes, mask, images.shape[1], self.decoding)

    def proposed(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the proposals (B, M, 4) for training in images (B, S, S, C), and their mask."""
        maps, _ = self.features(images)
        return propose(
            self.proposals(maps), self.grid(maps), images.shape[1], self.rules, self.rules.train
        )

    def proposal_losses(
        self, images: jax.Array, batch: Batch, key: jax.Array, train: bool = True
    ) -> dict[str, jax.Array]:
        """Returns the terms of the loss of the proposal network alone, (B,) each."""
        maps, _ = self.features(images, train)
        return proposal_losses(key, self.proposals(maps), self.grid(maps), batch, self.rules)

    def region_losses(
        self,
        images: jax.Array,
        batch: Batch,
        proposals: tuple[jax.Array, jax.Array],
        key: jax.Array,
        train: bool = True,
    ) -> dict[str, jax.Array]:
        """Returns the terms of the loss of Fast R-CNN on given proposals, (B,) each."""
        return self._region_losses(self.features(images, train)[0], batch, proposals, key)

    def losses(
        self, images: jax.Array, batch: Batch, key: jax.Array, train: bool = True
    ) -> dict[str, jax.Array]:
        """Returns the terms of the joint loss of both networks, (B,) each.

        This is the paper's approximate joint training, which treats the proposals as constants.
        """
        anchor_key, region_key = jax.random.split(key)
        maps, _ = self.features(images, train)
        grid, outputs = self.grid(maps), self.proposals(maps)
        proposals = propose(outputs, grid, images.shape[1], self.rules, self.rules.train)
        return {
            **proposal_losses(anchor_key, outputs, grid, batch, self.rules),
            **self._region_losses(maps, batch, proposals, region_key),
        }

    def _region_losses(
        self,
        maps: tuple[jax.Array, ...],
        batch: Batch,
        proposals: tuple[jax.Array, jax.Array],
        key: jax.Array,
    ) -> dict[str, jax.Array]:
        targets = region_targets(key, *proposals, batch, self.regions.num_classes, self.sampling)
        return region_losses(self.regions(maps, targets.boxes), targets)


def shapes_by_level(shapes: np.ndarray, levels: int) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Distributes shapes (k, 2) over the levels of a pyramid, the smallest to the finest.

    Raises:
        InputError: when the number of levels does not divide the number of shapes.

    >>> shapes_by_level(np.array([[8.0, 8.0], [4.0, 4.0]]), 2)
    (((4.0, 4.0),), ((8.0, 8.0),))
    """
    if levels < 1 or len(shapes) % levels or not len(shapes):
        raise InputError(
            f"{len(shapes)} anchor shapes cannot be divided among {levels} levels, which need "
            f"equal numbers; give a multiple of {levels}"
        )
    order = np.argsort(np.prod(shapes, axis=1), kind="stable")
    parts: Sequence[np.ndarray] = np.split(np.asarray(shapes)[order], levels)
    return tuple(tuple((float(h), float(w)) for h, w in part) for part in parts)
