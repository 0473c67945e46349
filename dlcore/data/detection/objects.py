"""The annotations of pictures for detection, and the rules for annotations with faults.

Every reader hands the boxes that it finds to `Rules`, which treats those with faults as follows:

| box | rule |
| --- | --- |
| anything but four numbers (strings, too few) | refused, with file and place |
| of a category that is not in the list | refused, with file and place |
| with NaN or infinity | dropped |
| with reversed corners (a negative side) | dropped |
| without area (a side of 0) | dropped |
| without a part inside of the picture | dropped |
| over the edge of the picture | clipped to it |

Dropped and clipped boxes are counted, and the counts are notes for the log. A picture whose boxes
are all dropped, or that never had one, stays: it is a picture without an object. Landmarks belong
to their box and are dropped with it; a landmark outside of the picture, or with NaN, counts as
missing. Shapes: n objects of a picture, P landmarks of an object.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dlcore import boxes as geometry
from dlcore.data import pictures
from dlcore.data.pictures import StoredImage
from dlcore.errors import InputError

NOT_FINITE = "boxes with NaN or infinity, dropped"
REVERSED = "boxes with reversed corners, dropped"
NO_AREA = "boxes without area, dropped"
OUTSIDE = "boxes outside of their picture, dropped"
CLIPPED = "boxes over the edge of their picture, clipped to it"
# Dividing by the sides of a picture leaves boxes that touch an edge so far beyond it at most.
_ROUNDING = 1e-6
_MOST = 1 << 30  # pixels of a side


class PictureId(NamedTuple):
    """The identity of a picture in its source.

    Attributes:
        id: its id there: a number in COCO's files, a name elsewhere.
        file_name: the name of its file.
    """

    id: int | str
    file_name: str


class Objects(NamedTuple):
    """The objects of one picture, with coordinates in shares of its height and width.

    Attributes:
        picture: the identity of the picture.
        size: the height and width of the picture for which the boxes were drawn; None where the
            annotation does not state it.
        boxes: float64 [n, 4], in the form "corners".
        labels: int32 [n].
        difficult: bool [n], true for objects that an evaluation like Pascal VOC's leaves out.
        crowd: bool [n], true for boxes around many objects, as in COCO.
        landmarks: float64 [n, P, 2], y and x.
        landmarks_mask: bool [n, P].
    """

    picture: PictureId
    size: tuple[int, int] | None
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    landmarks: np.ndarray
    landmarks_mask: np.ndarray


class Part(NamedTuple):
    """The pictures of one part of a data set, not decoded yet, and their objects.

    Attributes:
        images: the N pictures.
        objects: the objects of each of the N pictures.
    """

    images: Sequence[StoredImage]
    objects: Sequence[Objects]


class Annotated(NamedTuple):
    """The data that a reader finds.

    Attributes:
        class_names: the name of each label.
        category_ids: the number that each class has in its source.
        train: the pictures to train on.
        test: the held-out pictures.
        landmark_names: the name of each of the P landmarks.
        notes: lines for the log.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    train: Part
    test: Part
    landmark_names: tuple[str, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass
class Rules:
    """The treatment of boxes with faults, with a count of them.

    Attributes:
        landmarks: P.
        boxes: the number of boxes seen so far.
        counts: the number of boxes with a fault, by the note on the fault.
    """

    landmarks: int = 0
    boxes: int = 0
    counts: Counter[str] = dataclasses.field(default_factory=Counter)

    def objects(
        self,
        picture: PictureId,
        size: tuple[int, int] | None,
        boxes: Sequence[Sequence[float]] | np.ndarray,
        labels: Sequence[int],
        *,
        difficult: Sequence[bool] | np.ndarray | None = None,
        crowd: Sequence[bool] | np.ndarray | None = None,
        landmarks: np.ndarray | None = None,
        landmarks_mask: np.ndarray | None = None,
    ) -> Objects:
        """Returns the objects of a picture, with faults treated by the rules.

        Args:
            picture: the identity of the picture.
            size: the height and width that the boxes were drawn for, or None.
            boxes: n boxes of four numbers, y_min, x_min, y_max, x_max in shares of the picture.
            labels: n labels.
            difficult: n truth values; None means false.
            crowd: n truth values; None means false.
            landmarks: [n, P, 2] in shares of the picture; None where there are none.
            landmarks_mask: [n, P].
        """
        given = np.asarray(boxes, np.float64).reshape(-1, 4)
        count = len(given)
        with np.errstate(invalid="ignore"):
            sides = given[:, 2:] - given[:, :2]
        clipped = geometry.clip(given, 1, 1)
        kept = np.ones(count, bool)
        for fault, note in (
            (~np.isfinite(given).all(1), NOT_FINITE),
            ((sides < 0).any(1), REVERSED),
            ((sides == 0).any(1), NO_AREA),
            (~(geometry.area(clipped) > 0), OUTSIDE),
        ):
            self.counts[note] += int((kept & fault).sum())
            kept &= ~fault
        with np.errstate(invalid="ignore"):
            beyond = (np.abs(clipped - given) > _ROUNDING).any(1)
        self.counts[CLIPPED] += int((kept & beyond).sum())
        self.boxes += count
        if landmarks is None or landmarks_mask is None:
            landmarks = np.zeros((count, self.landmarks, 2))
            landmarks_mask = np.zeros((count, self.landmarks), bool)
        with np.errstate(invalid="ignore"):
            there = landmarks_mask & ((landmarks >= 0) & (landmarks <= 1)).all(-1)
        return Objects(
            picture,
            size,
            clipped[kept],
            np.asarray(labels, np.int32).reshape(-1)[kept],
            _flags(difficult, count)[kept],
            _flags(crowd, count)[kept],
            np.where(there[..., None], landmarks, 0.0)[kept],
            there[kept],
        )

    def notes(self, name: str) -> tuple[str, ...]:
        """Returns the lines for the log about boxes that were dropped and clipped."""
        return tuple(
            f"{name}: {count:,} of {self.boxes:,} {note}"
            for note, count in self.counts.items()
            if count
        )


def numbers(values: Any, count: int, where: str) -> list[float]:
    """Returns values from a file as numbers.

    Args:
        values: the content of the file.
        count: the required count of numbers.
        where: the place of the values in words, for the error.

    Raises:
        InputError: when the values are not `count` numbers.
    """
    if not isinstance(values, list | tuple) or len(values) != count:
        raise InputError(f"{where} is {_short(values)}; it must be {count} numbers")
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise InputError(f"{where} is {_short(values)}, not all of which are numbers; give {count}")
    try:
        return [float(value) for value in values]
    except OverflowError:
        raise InputError(f"{where} has a number with too many digits; correct it") from None


def valid_size(height: Any, width: Any) -> tuple[int, int] | None:
    """Returns height and width from a file as whole numbers, or None where they are not a size."""
    sides = (height, width)
    if all(isinstance(side, int | float) and 1 <= side < _MOST for side in sides):
        return int(height), int(width)
    return None


def size_of(image: StoredImage) -> tuple[int, int]:
    """Returns height and width of a picture once it is turned upright, read from its header.

    Raises:
        InputError: when it is not a readable image.
    """
    with pictures.opened(image) as opened:
        return pictures.upright_size(opened)


def mirror_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Returns which landmarks are each other's mirror images, according to their names.

    >>> mirror_pairs(["nose", "left_eye", "right_eye"])
    ((1, 2),)
    """
    word = re.compile(r"(?<![a-z])left(?![a-z])")
    places = {name.lower(): at for at, name in enumerate(names)}
    return tuple(
        (at, places[word.sub("right", name)])
        for name, at in places.items()
        if word.search(name) and word.sub("right", name) in places
    )


def held_out_fifth(images: Sequence[StoredImage], objects: Sequence[Objects]) -> tuple[Part, Part]:
    """Returns the pictures to train on and a fixed fifth of them, drawn at random.

    Raises:
        InputError: for fewer than two pictures.
    """
    if len(images) < 2:
        raise InputError(
            f"{len(images)} pictures are too few to hold some out for the test; give 2 or more"
        )
    order = np.random.default_rng(0).permutation(len(images))
    test = -(-len(images) // 5)
    train, held_out = (
        Part([images[i] for i in chosen], [objects[i] for i in chosen])
        for chosen in (np.sort(order[test:]), np.sort(order[:test]))
    )
    return train, held_out


def _flags(values: Sequence[bool] | np.ndarray | None, count: int) -> np.ndarray:
    return np.zeros(count, bool) if values is None else np.asarray(values, bool).reshape(-1)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
