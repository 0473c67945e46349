"""The data set of handwritten digits on photographs, with boxes and landmarks, for detection.

The digits are those of `digits`. The photographs are scikit-learn's china.jpg and flower.jpg, both
under CC BY 2.0; its README of images names who took them.

A scene is drawn by additions, products and comparisons of single numbers alone, which all machines
round alike; so its pixels are the same everywhere. H and W are heights and widths in pixels.
"""

import functools
import io
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tqdm
from PIL import Image

from dlcore.boxes import intersection, iou, relative
from dlcore.data.builders.digits import split_digits
from dlcore.data.pictures import PHOTOGRAPHS, photograph
from dlcore.data.tfds import tfds

SIDE = 96
SIZES = {"train": 4_000, "test": 500}
MOST_OBJECTS = 6
LANDMARKS = ("top_left", "top_right", "bottom_right", "bottom_left")

_HEIGHTS = (14.0, 40.0)  # of a digit's longer side, in pixels
_TURN = 0.13  # the largest tangent of half the angle: 15 degrees
_OVERLAP = 0.15  # the largest IoU of two boxes
_INK = 0.5  # a pixel that has less of a digit's colour is not of its ink
_CONTRAST = 90  # between ink and what lies around it, of 255 levels of brightness
_SPOILT = 0.05  # the share of the ink that may have less
_FINE = 8  # points of a smooth digit for each pixel of the original
_BORDER = 2  # pixels of the original around it, which have no ink
_TEST_COLUMNS = 192  # of the photographs, at their right

# The key and the features of an example.
Example: TypeAlias = tuple[int, dict[str, Any]]


class Glyph(NamedTuple):
    """A digit that can be drawn at any size.

    Attributes:
        ink: float64 [96, 96], the share of its colour at points; `_FINE` points are a pixel of the
            original.
        frame: y_min, x_min, y_max, x_max of its ink, in points.
    """

    ink: np.ndarray
    frame: tuple[float, float, float, float]


class Drawn(NamedTuple):
    """A digit in a scene.

    Attributes:
        ink: float64 [96, 96], the share of its colour in each pixel of the scene.
        place: the rows and columns that contain all its ink.
        box: y_min, x_min, y_max, x_max of its ink, in pixels.
        corners: float64 [4, 2], y and x of the corners `LANDMARKS` of its frame, turned with it.
    """

    ink: np.ndarray
    place: tuple[slice, slice]
    box: np.ndarray
    corners: np.ndarray


class Scene(NamedTuple):
    """A picture with objects.

    Attributes:
        image: uint8 [96, 96, 3].
        boxes: float64 [n, 4], in pixels.
        labels: n.
        corners: float64 [n, 4, 2], in pixels.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: list[int]
    corners: np.ndarray


class DigitScenesConfig(tfds.core.BuilderConfig):
    """The numbers of digits that a scene can have.

    Args:
        name: the name of the configuration.
        fewest: the smallest number of digits in a scene.
        most: the largest number of digits in a scene; all numbers in between are equally likely.
    """

    def __init__(self, name: str, fewest: int, most: int):
        super().__init__(name=name)
        self.fewest = fewest
        self.most = most


class DigitScenes(tfds.core.GeneratorBasedBuilder):
    """Always the same 4,000 scenes of 96 x 96 pixels to train on and 500 held out.

    `digit_scenes/several`, the default, has 0 to 6 digits in a scene, `digit_scenes/one` exactly
    one. Training has none of the digits and none of the photographs' regions that the test has. A
    digit is 14 to 40 pixels long, turned by up to 15 degrees, and of a colour that differs from its
    background. Boxes are tight around the ink; two boxes overlap by an IoU of at most 0.15, and ink
    never lies on ink. Landmarks are the corners of the frame that was tight around the digit before
    it was turned.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        DigitScenesConfig("several", 0, MOST_OBJECTS),
        DigitScenesConfig("one", 1, 1),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
                    "objects": tfds.features.Sequence(
                        {
                            "bbox": tfds.features.BBoxFeature(),
                            "label": tfds.features.ClassLabel(num_classes=10),
                            "landmarks": tfds.features.Tensor(shape=(4, 2), dtype=np.float32),
                        }
                    ),
                }
            ),
            metadata=tfds.core.MetadataDict(landmark_names=list(LANDMARKS)),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[Example]]:
        return {split: self._generate_examples(split) for split in SIZES}

    def _generate_examples(self, split: str) -> Iterator[Example]:
        # The caller silences TFDS, which would tell of each of its steps.
        progress = tqdm.tqdm(
            range(SIZES[split]),
            desc=f"drawing {split} scenes",
            file=sys.__stderr__,
            disable=None if sys.__stderr__ else True,
            leave=False,
        )
        config = self.builder_config
        for index in progress:
            scene = draw_scene(split, index, config.fewest, config.most)
            png = io.BytesIO()
            Image.fromarray(scene.image).save(png, "png", compress_level=1)
            shares = relative(scene.boxes, SIDE, SIDE)
            yield (
                index,
                {
                    "image": png.getvalue(),
                    "objects": [
                        {
                            "bbox": tfds.features.BBox(*box),
                            "label": label,
                            "landmarks": (corners / SIDE).astype(np.float32),
                        }
                        for box, label, corners in zip(
                            shares.tolist(), scene.labels, scene.corners, strict=True
                        )
                    ],
                },
            )


def draw_scene(split: str, index: int, fewest: int = 0, most: int = MOST_OBJECTS) -> Scene:
    """Draws one scene, which is a function of the arguments alone.

    Args:
        split: "train" or "test".
        index: the number of the scene.
        fewest: the smallest number of digits.
        most: the largest number of digits.
    """
    images, labels, parts = _digits()
    rng = np.random.Generator(np.random.Philox(key=[[*SIZES].index(split), index]))
    image = _background(split, rng)
    count = int(rng.integers(fewest, most + 1))
    drawn: list[Drawn] = []
    chosen: list[int] = []
    while len(drawn) < count:
        number = int(rng.choice(parts[split]))
        new = _draw(_glyph(number), rng)
        if new is None or any(_collide(new, other) for other in drawn):
            continue
        if not _paint(image[new.place], new.ink[new.place], rng):
            continue
        drawn.append(new)
        chosen.append(int(labels[number]))
    return Scene(
        image,
        np.array([new.box for new in drawn], np.float64).reshape(-1, 4),
        chosen,
        np.array([new.corners for new in drawn], np.float64).reshape(-1, 4, 2),
    )


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    return split_digits()


@functools.cache
def _photographs() -> tuple[np.ndarray, ...]:
    return tuple(map(photograph, PHOTOGRAPHS))


@functools.cache
def _glyph(number: int) -> Glyph:
    """Enlarges a digit of 8 x 8 by cubic convolution (Keys 1981) and sharpens its edge."""
    levels = np.pad(_digits()[0][number] / 16, _BORDER)
    smooth = _enlarged(_enlarged(levels).T).T
    ink = np.clip((smooth - 0.25) * 2.5, 0.0, 1.0)
    return Glyph(ink, _bounds(ink))


def _enlarged(rows: np.ndarray) -> np.ndarray:
    """Interpolates `_FINE` rows for each one, [n, m] to [_FINE n, m]."""
    total = np.zeros((len(rows) * _FINE, rows.shape[1]))
    for weight, source in _taps(len(rows)):
        total += weight * rows[source]
    return total


@functools.cache
def _taps(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the weights [_FINE n, 1] and the rows [_FINE n] of each of the four taps."""
    at = (np.arange(count * _FINE) + 0.5) / _FINE - 0.5
    first = np.floor(at).astype(int)
    taps = []
    for tap in range(-1, 3):
        distance = np.abs(at - (first + tap))
        near = ((1.5 * distance - 2.5) * distance) * distance + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weight = np.where(distance <= 1, near, far)
        taps.append((weight[:, None], np.clip(first + tap, 0, count - 1)))
    return taps


def _bounds(ink: np.ndarray) -> tuple[float, float, float, float]:
    """Returns y_min, x_min, y_max, x_max of the ink in an array [H, W]."""
    rows, columns = (np.flatnonzero((ink >= _INK).any(axis)) for axis in (1, 0))
    return float(rows[0]), float(columns[0]), float(rows[-1] + 1), float(columns[-1] + 1)


def _background(split: str, rng: np.random.Generator) -> np.ndarray:
    """Cuts a square out of the split's part of a photograph and changes its size and light."""
    photograph = _photographs()[rng.integers(2)]
    edge = photograph.shape[1] - _TEST_COLUMNS
    part = photograph[:, :edge] if split == "train" else photograph[:, edge:]
    factor = int(rng.integers(1, 3))
    side = factor * SIDE
    top, left = (int(rng.integers(length - side + 1)) for length in part.shape[:2])
    cut = part[top : top + side, left : left + side].astype(np.int64)
    if rng.integers(2):
        cut = cut[:, ::-1]
    total = cut.reshape(SIDE, factor, SIDE, factor, 3).sum((1, 3))
    light = int(rng.integers(128, 257))  # of 256
    return (total * light // (256 * factor * factor)).astype(np.uint8)


def _draw(glyph: Glyph, rng: np.random.Generator) -> Drawn | None:
    """Draws a digit anywhere in a scene; returns None if a corner of its frame would be outside."""
    top, left, bottom, right = glyph.frame
    share = rng.random()
    length = _HEIGHTS[0] + (_HEIGHTS[1] - _HEIGHTS[0]) * share * np.sqrt(share)
    scale = length / max(bottom - top, right - left)  # pixels of the scene for each point
    # The cosine and the sine of an angle by the tangent of its half, without either function.
    half = (2 * rng.random() - 1) * _TURN
    cosine, sine = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    middle = np.array([(top + bottom) / 2, (left + right) / 2])
    centre = SIDE * rng.random(2)
    frame = np.array([[top, left], [top, right], [bottom, right], [bottom, left]]) - middle
    corners = scale * np.stack(
        [
            cosine * frame[:, 0] - sine * frame[:, 1],
            sine * frame[:, 0] + cosine * frame[:, 1],
        ],
        1,
    )
    corners += centre
    if corners.min() < 0 or corners.max() > SIDE:
        return None
    # Each pixel near the digit reads the point that lies under its centre.
    low = np.clip(np.floor(corners.min(0)).astype(int) - 2, 0, SIDE)
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 2, 0, SIDE)
    y = (np.arange(low[0], high[0]) + 0.5 - centre[0])[:, None] / scale
    x = (np.arange(low[1], high[1]) + 0.5 - centre[1])[None, :] / scale
    place = slice(low[0], high[0]), slice(low[1], high[1])
    near = _sampled(
        glyph.ink, middle[0] + (cosine * y + sine * x), middle[1] + (cosine * x - sine * y)
    )
    ink = np.zeros((SIDE, SIDE))
    ink[place] = near
    return Drawn(ink, place, np.array(_bounds(near)) + np.tile(low, 2), corners)


def _sampled(points: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Interpolates bilinearly between the centres of points; there is no ink beyond them."""
    y, x = (np.clip(at - 0.5, 0, len(points) - 1.001) for at in (y, x))
    top, left = y.astype(int), x.astype(int)
    down, across = y - top, x - left
    upper = points[top, left] * (1 - across) + points[top, left + 1] * across
    lower = points[top + 1, left] * (1 - across) + points[top + 1, left + 1] * across
    return upper * (1 - down) + lower * down


def _collide(a: Drawn, b: Drawn) -> bool:
    """Returns whether two digits overlap too much, or ink of both lies on a pixel."""
    if not intersection(a.box, b.box) > 0:
        return False
    both = (a.ink[b.place] > 0) & (b.ink[b.place] > 0)
    return bool(iou(a.box, b.box) > _OVERLAP or both.any())


def _paint(image: np.ndarray, ink: np.ndarray, rng: np.random.Generator) -> bool:
    """Paints a digit in a random colour, unless it would be illegible."""
    around = _brightness(image[ink >= _INK].astype(np.int64))
    colours = rng.integers(256, size=(10, 3))
    differ = np.abs(around[:, None] - _brightness(colours)) >= _CONTRAST
    legible = np.count_nonzero(differ, 0) >= (1 - _SPOILT) * len(around)
    if not legible.any():
        return False
    share = ink[..., None]
    image[:] = np.floor(image * (1 - share) + colours[legible.argmax()] * share + 0.5)
    return True


def _brightness(colours: np.ndarray) -> np.ndarray:
    """Returns the perceived brightness of colours [..., 3] (ITU-R BT.601), in whole levels."""
    red, green, blue = colours[..., 0], colours[..., 1], colours[..., 2]
    return (299 * red + 587 * green + 114 * blue) // 1000
