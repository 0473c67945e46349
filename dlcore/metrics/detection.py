"""Scores of detectors: average precision of Pascal VOC and COCO, kinds of errors, landmarks.

Average precision is not a mean over pictures: it ranks the detections of a whole split. So
`Judgement` gathers the detections of each picture, by the picture's number, and is scored at the
end. Shapes: B pictures of a batch, N objects and M detections of a picture, K classes, P landmarks.
"""

import contextlib
import dataclasses
import io
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import boxes as geometry
from dlcore.types import Mean, Metrics

RECALLS = np.linspace(0, 1, 11)  # of VOC 2007
# TIDE's thresholds of a right place and of any place.
RIGHT, NEAR = 0.5, 0.1
ERRORS = ("class", "place", "both", "duplicate", "background", "missed")


class Found(Protocol):
    """Detections of B pictures, such as `dlcore.models.detection.Detections`."""

    @property
    def boxes(self) -> Any: ...  # (B, M, 4)

    @property
    def scores(self) -> Any: ...  # (B, M)

    @property
    def labels(self) -> Any: ...  # (B, M)

    @property
    def mask(self) -> Any: ...  # (B, M)


class Picture(NamedTuple):
    """The objects and the detections of a picture, in the picture's own pixels.

    Attributes:
        size: the height and width of the picture.
        boxes: float64 (N, 4), the objects.
        labels: (N,).
        difficult: bool (N,), objects that are neither right nor wrong to find.
        crowd: bool (N,), boxes around many objects, which any number of detections may find.
        found: float64 (M, 4), the detections, the best first.
        scores: (M,).
        found_labels: (M,).
    """

    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    found: np.ndarray
    scores: np.ndarray
    found_labels: np.ndarray

    @property
    def ignored(self) -> np.ndarray:
        """Which objects are difficult or crowds, bool (N,)."""
        return self.difficult | self.crowd


@dataclasses.dataclass
class Judgement:
    """The objects and detections in the pictures of a split.

    A picture counts once, whatever the batches, padding and processes: rows of weight 0 are left
    out, and a known picture is not added again. All scores take the pictures in the order of their
    numbers, so that the order in which they were added does not matter.

    Attributes:
        class_names: the names of the K classes.
        pictures: the pictures by their numbers.
    """

    class_names: tuple[str, ...]
    pictures: dict[int, Picture] = dataclasses.field(default_factory=dict)

    def add(self, batch: Mapping[str, Any], found: Found) -> None:
        """Adds the pictures of a batch.

        Args:
            batch: "image" (B, S, S, C), of which only the side is used, "boxes", "boxes_mask",
                "labels", "image_id" and "size", and optionally "difficult", "crowd" and "weight";
                boxes are in pixels of the letterboxed square.
            found: the detections in the same square.
        """
        side = np.shape(batch["image"])[1]
        weight = batch.get("weight")
        rows = range(len(batch["image_id"])) if weight is None else np.flatnonzero(weight)
        arrays = {key: np.asarray(batch[key]) for key in ("boxes", "labels", "size", "image_id")}
        real = np.asarray(batch["boxes_mask"])
        kept = np.asarray(found.mask)
        flags = {
            key: np.asarray(batch.get(key, np.zeros(real.shape, bool))).astype(bool)
            for key in ("difficult", "crowd")
        }
        boxes, scores, labels = (
            np.asarray(value) for value in (found.boxes, found.scores, found.labels)
        )
        for row in rows:
            height, width = map(int, arrays["size"][row])
            back = geometry.Letterbox.fit(height, width, side).to_picture
            here, mask = real[row], kept[row]
            best = np.argsort(-scores[row][mask], kind="stable")
            picture = Picture(
                (height, width),
                back(arrays["boxes"][row][here].astype(np.float64)),
                arrays["labels"][row][here],
                flags["difficult"][row][here],
                flags["crowd"][row][here],
                geometry.clip(
                    back(boxes[row][mask][best].astype(np.float64)), height=height, width=width
                ),
                scores[row][mask][best].astype(np.float64),
                labels[row][mask][best],
            )
            self.pictures.setdefault(int(arrays["image_id"][row]), picture)

    def merge(self, other: "Judgement") -> "Judgement":
        """Returns the pictures of both judgements, such as those of two processes."""
        return Judgement(self.class_names, other.pictures | self.pictures)

    def ordered(self) -> list[Picture]:
        """Returns the pictures in the order of their numbers."""
        return [self.pictures[number] for number in sorted(self.pictures)]


class Curve(NamedTuple):
    """The curve of precision against recall as more detections of a class count.

    Attributes:
        recall: (D,), the recall after each detection that is right or wrong, the best first.
        precision: (D,), the precision after each.
        scores: (D,), the scores of the detections.
    """

    recall: np.ndarray
    precision: np.ndarray
    scores: np.ndarray


class VOCScores(NamedTuple):
    """Average precision as Pascal VOC defines it.

    Attributes:
        mean: the mean over the classes that have objects; NaN where none has.
        by_class: (K,), the average precision of each class; NaN for classes without objects.
        curves: the curve of each class.
    """

    mean: float
    by_class: np.ndarray
    curves: tuple[Curve, ...]


def voc_scores(
    judgement: Judgement, *, iou_threshold: float = 0.5, eleven_points: bool = False
) -> VOCScores:
    """Computes Pascal VOC's average precision (Everingham et al. 2010, 2015).

    For each class, each detection of all pictures, the best first, is assigned to the object of its
    class with the highest IoU. It is right if this is at least the threshold and no earlier
    detection was assigned to the object, and neither right nor wrong if the object is difficult or
    a crowd. Of equal scores the picture with the lower number comes first.

    Args:
        judgement: the judgement of a split.
        iou_threshold: the least IoU of a right detection.
        eleven_points: whether the precision is averaged at the recalls 0, 0.1 to 1, as until 2009,
            or at all recalls, as since then.
    """
    pictures = judgement.ordered()
    curves, averages = [], []
    for label in range(len(judgement.class_names)):
        scores, verdicts, count = [], [], 0
        for picture in pictures:
            chosen = picture.labels == label
            ours = picture.found_labels == label
            ignored = picture.ignored[chosen]
            count += int((~ignored).sum())
            scores.append(picture.scores[ours])
            verdicts.append(
                _verdicts(picture.found[ours], picture.boxes[chosen], ignored, iou_threshold)
            )
        curve = _curve(_joined(scores), _joined(verdicts), count)
        curves.append(curve)
        averages.append(interpolated_precision(curve, eleven_points=eleven_points))
    by_class = np.array(averages)
    return VOCScores(_mean(by_class), by_class, tuple(curves))


def interpolated_precision(curve: Curve, *, eleven_points: bool = False) -> float:
    """Returns the average of the best precision at each recall or a higher one.

    Args:
        curve: the curve of a class.
        eleven_points: as in `voc_scores`.

    Returns:
        A number from 0 to 1; NaN for a class without objects.

    >>> curve = Curve(np.array([0.5, 0.5, 1.0]), np.array([1, 1 / 2, 2 / 3]), np.zeros(3))
    >>> round(interpolated_precision(curve), 4)
    0.8333
    >>> round(interpolated_precision(curve, eleven_points=True), 4)
    0.8485
    """
    if np.isnan(curve.recall).any():
        return float("nan")
    recall = np.concatenate([[0.0], curve.recall])
    # Beyond the last recall the precision is 0.
    best = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0.0)
    if eleven_points:
        # A recall of 3/10 reaches 0.3, whose float may be the larger one.
        places = np.searchsorted(curve.recall, RECALLS - 1e-12)
        return float(best[places].mean())
    return float((np.diff(recall) * best[:-1]).sum())


class COCOScores(NamedTuple):
    """Average precision as COCO defines it; NaN where there was nothing to find.

    Attributes:
        ap: the mean over the classes and the IoU thresholds 0.5, 0.55 to 0.95.
        ap50: the mean at the IoU 0.5 alone.
        ap75: the mean at the IoU 0.75 alone.
        small: `ap` of objects with less than 32^2 pixels.
        medium: `ap` of objects from 32^2 to 96^2 pixels.
        large: `ap` of larger objects.
        recall: the mean recall with 100 detections per picture, over classes and thresholds.
        by_class: (K,), `ap` of each class.
        by_class50: (K,), `ap50` of each class.
    """

    ap: float
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float
    recall: float
    by_class: np.ndarray
    by_class50: np.ndarray


def coco_scores(judgement: Judgement) -> COCOScores:
    """Computes COCO's scores by pycocotools (Lin et al. 2014).

    Difficult objects are ignored like crowds, but with one detection each. The area of an object is
    the area of its box, whereas COCO's own files have the area of its outline.

    Args:
        judgement: of a split.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    objects: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for number, picture in enumerate(judgement.ordered()):
        for box, label, difficult, crowd in zip(*picture[1:5], strict=True):
            one = _annotation(number, box, label, len(objects))
            objects.append(one | {"iscrowd": int(crowd), "ignored": bool(difficult or crowd)})
        for box, score, label in zip(*picture[5:], strict=True):
            one = _annotation(number, box, label, len(detections))
            detections.append(one | {"iscrowd": 0, "score": float(score)})
    parts = []
    with contextlib.redirect_stdout(io.StringIO()):
        for annotations in (objects, detections):
            part = COCO()
            part.dataset = {
                "images": [{"id": number} for number in range(len(judgement.pictures))],
                "categories": [{"id": label} for label in range(len(judgement.class_names))],
                "annotations": annotations,
            }
            part.createIndex()
            parts.append(part)

        class Evaluation(COCOeval):
            def _prepare(self) -> None:
                super()._prepare()  # which takes the mark off what is no crowd
                for annotations in self._gts.values():
                    for one in annotations:
                        one["ignore"] = one["ignored"]

        evaluation = Evaluation(*parts, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # IoU, recall, class, area, most detections
    recall = evaluation.eval["recall"]

    def mean(values: np.ndarray) -> float:
        return float(values[values >= 0].mean()) if (values >= 0).any() else float("nan")

    classes = range(precision.shape[2])
    return COCOScores(
        mean(precision[..., 0, -1]),
        mean(precision[0, ..., 0, -1]),
        mean(precision[5, ..., 0, -1]),
        mean(precision[..., 1, -1]),
        mean(precision[..., 2, -1]),
        mean(precision[..., 3, -1]),
        mean(recall[..., 0, -1]),
        np.array([mean(precision[:, :, k, 0, -1]) for k in classes]),
        np.array([mean(precision[0, :, k, 0, -1]) for k in classes]),
    )


class ErrorScores(NamedTuple):
    """The errors of a detector by kind, of `ERRORS`.

    Attributes:
        counts: the number of errors of each kind.
        shares: their shares of all errors, 0 to 1; all 0 where there are no errors.
        gains: how much the mean average precision at the IoU 0.5 would rise without errors of each
            kind.
    """

    counts: dict[str, int]
    shares: dict[str, float]
    gains: dict[str, float]


class _Outcome(NamedTuple):
    """The outcome of one detection: the kind of its error, "" where it is right."""

    kind: str
    label: int
    score: float
    object: int  # number of the object it is right for or should have been, or -1


def error_scores(judgement: Judgement, *, score_threshold: float = 0.0) -> ErrorScores:
    """Sorts the errors of a detector by their kind, as TIDE does (Bolya et al. 2020).

    A detection is right if it has an IoU of 0.5 or more with an object of its class. For any other
    detection the first of these rules that applies determines the kind:

    - "place": the IoU with an object of its class is 0.1 to 0.5.
    - "class": the IoU with an object of another class is 0.5 or more.
    - "duplicate": the IoU with an object of its class is 0.5 or more, but a better one found it.
    - "background": no IoU is above 0.1.
    - "both": any other.

    "missed" are the objects that no detection found and that no error of place or class concerns.
    Detections of difficult objects and of crowds are not counted.

    For the gain of a kind its errors are corrected: errors of place and class become right, unless
    the object was found or a better detection is corrected to it; other errors are removed.

    Args:
        judgement: the judgement of a split.
        score_threshold: detections with lower scores are left out.
    """
    outcomes: list[_Outcome] = []
    labels: list[int] = []
    for picture in judgement.ordered():
        outcomes += _outcomes(picture, len(labels), score_threshold)
        # Ignored objects have numbers too, and no class.
        labels += np.where(picture.ignored, -1, picture.labels).tolist()
    about = {one.object for one in outcomes if one.kind in ("", "place", "class")}
    missed = [k for k, label in enumerate(labels) if label >= 0 and k not in about]
    counts = {kind: sum(one.kind == kind for one in outcomes) for kind in ERRORS}
    counts["missed"] = len(missed)
    total = max(1, sum(counts.values()))
    shares = {kind: count / total for kind, count in counts.items()}

    number = len(judgement.class_names)
    found = {one.object for one in outcomes if one.kind == ""}
    objects = np.bincount([label for label in labels if label >= 0], minlength=number)
    plain = _mean_precision(outcomes, objects)

    def mended(kind: str) -> float:
        taken, kept = set(found), []
        for one in sorted(outcomes, key=lambda one: -one.score):
            if one.kind != kind:
                kept.append(one)
            elif kind in ("place", "class") and one.object not in taken:
                taken.add(one.object)
                kept.append(one._replace(kind="", label=labels[one.object]))
        lost = [labels[k] for k in missed] if kind == "missed" else []
        return _mean_precision(kept, objects - np.bincount(lost, minlength=number).astype(int))

    gains = {kind: mended(kind) - plain for kind in ERRORS}
    return ErrorScores(counts, shares, gains)


def landmark_scores(
    predicted: jax.Array,
    landmarks: jax.Array,
    mask: jax.Array,
    scale: jax.Array,
    *,
    within: float = 0.1,
) -> Metrics:
    """Returns how accurately the visible landmarks are found.

    Args:
        predicted: the predicted landmarks (..., P, 2), y, x in pixels.
        landmarks: the true landmarks (..., P, 2).
        mask: (..., P), false for landmarks that do not count.
        scale: (...), the length by which distances are divided, such as the distance of the eyes or
            the square root of the area of the object's box, in pixels; where it is 0 nothing
            counts.
        within: the share of the scale within which a landmark is right.

    Returns:
        "nme", the normalised mean error, and "pck", the share of right landmarks (percentage of
        correct key points; Yang & Ramanan 2013).

    >>> scores = landmark_scores(jnp.array([[3.0, 4]]), jnp.zeros((1, 2)), jnp.array([True]),
    ...                          jnp.array(10.0))
    >>> float(scores["nme"].compute()), float(scores["pck"].compute())
    (0.5, 0.0)
    """
    counts = mask & (scale > 0)[..., None]
    # The gradient is nobody's business here, the square root of 0 is.
    distance = jnp.sqrt(((predicted - landmarks) ** 2).sum(-1))
    error = distance / jnp.where(scale > 0, scale, 1)[..., None]
    weights = counts.astype(jnp.float32)
    return {"nme": Mean.of(error, weights), "pck": Mean.of(error <= within, weights)}


def _verdicts(
    found: np.ndarray, boxes: np.ndarray, ignored: np.ndarray, threshold: float
) -> np.ndarray:
    """Returns 1, -1 or 0 for right, wrong or neither, of one class's detections, the best first."""
    verdicts = np.full(len(found), -1)
    if not len(boxes):
        return verdicts
    overlap = geometry.pairwise(geometry.iou, found, boxes)
    free = np.ones(len(boxes), bool)
    for one, best in enumerate(overlap.argmax(1)):
        if overlap[one, best] >= threshold:
            if ignored[best]:
                verdicts[one] = 0
            elif free[best]:
                free[best], verdicts[one] = False, 1
    return verdicts


def _curve(scores: np.ndarray, verdicts: np.ndarray, count: int) -> Curve:
    order = np.argsort(-scores, kind="stable")
    order = order[verdicts[order] != 0]
    right = (verdicts[order] > 0).cumsum()
    recall = right / count if count else np.full(len(order) or 1, np.nan)
    return Curve(recall, right / np.arange(1, len(order) + 1), scores[order])


def _outcomes(picture: Picture, first: int, score_threshold: float) -> Iterable[_Outcome]:
    """Returns the outcomes of a picture's detections; its objects are numbered from `first`."""
    chosen = picture.scores >= score_threshold
    found, labels, scores = (
        part[chosen] for part in (picture.found, picture.found_labels, picture.scores)
    )
    real = ~picture.ignored
    overlap = geometry.pairwise(geometry.iou, found, picture.boxes)
    same = labels[:, None] == picture.labels[None]
    free = real.copy()
    for row, label, score, alike in zip(overlap, labels, scores, same, strict=True):

        def best(of: np.ndarray, row: np.ndarray = row) -> tuple[float, int]:
            """Returns the highest IoU with some of the objects, and which object that is."""
            masked = np.where(of, row, -1)
            return (masked.max(), int(masked.argmax())) if len(row) else (-1.0, -1)

        iou, place = best(alike & free)
        if iou >= RIGHT:
            free[place] = False
            yield _Outcome("", label, score, first + place)
            continue
        if best(alike & ~real)[0] >= RIGHT:
            continue
        mine, other, any_ = best(alike & real), best(~alike & real), best(real)
        if NEAR <= mine[0] < RIGHT:
            kind, place = "place", mine[1]
        elif other[0] >= RIGHT:
            kind, place = "class", other[1]
        elif mine[0] >= RIGHT:
            kind, place = "duplicate", mine[1]
        else:
            kind, place = "background" if any_[0] <= NEAR else "both", -1
        yield _Outcome(kind, label, score, first + place if place >= 0 else -1)


def _mean_precision(outcomes: list[_Outcome], objects: np.ndarray) -> float:
    """Returns the mean average precision of outcomes, given the number of objects of each class."""
    averages = []
    for label, count in enumerate(objects):
        ours = [one for one in outcomes if one.label == label]
        scores = np.array([one.score for one in ours])
        verdicts = np.array([-1 if one.kind else 1 for one in ours], int)
        averages.append(interpolated_precision(_curve(scores, verdicts, int(count))))
    return _mean(np.array(averages))


def _annotation(picture: int, box: np.ndarray, label: int, before: int) -> dict[str, Any]:
    x, y, width, height = map(float, geometry.convert(box, "corners", "corner_size"))
    # pycocotools takes the number 0 for no match.
    return {
        "id": before + 1,
        "image_id": picture,
        "category_id": int(label),
        "bbox": [x, y, width, height],
        "area": width * height,
    }


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)


def _mean(values: np.ndarray) -> float:
    """Returns the mean of the values that are not NaN; NaN where there are none."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")
