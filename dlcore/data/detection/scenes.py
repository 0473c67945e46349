"""Loads data sets for detection from any source as one kind of object.

Shapes: S the side of the square that pictures are fitted into, C channels, N the most objects of a
picture, P landmarks of an object.
"""

import dataclasses
import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from PIL import Image

from dlcore.boxes import Letterbox, absolute
from dlcore.data import pictures
from dlcore.data.detection.coco import is_coco, read_coco
from dlcore.data.detection.objects import Annotated, Objects, Part, PictureId, mirror_pairs, size_of
from dlcore.data.detection.voc import is_voc, read_voc
from dlcore.data.detection.yolo import is_yolo, read_yolo
from dlcore.data.images import check_image_size
from dlcore.data.pictures import StoredImage
from dlcore.data.sources import Records, Split
from dlcore.data.statistics import evenly_spaced
from dlcore.errors import InputError

PathLike = str | os.PathLike[str]
# Pictures of a data set that is not decoded into memory that are looked at for the log.
_SAMPLE = 256
_READERS = ((is_voc, read_voc), (is_yolo, read_yolo), (is_coco, read_coco))


@dataclasses.dataclass(frozen=True)
class DetectionData:
    """A data set for detection.

    An example is
      - "image": uint8 [S, S, C], the picture in the middle of a black square (`boxes.Letterbox`);
      - "boxes": float32 [N, 4], y_min, x_min, y_max, x_max in pixels of that square, and
        "boxes_mask": bool [N], false for padding, which comes last;
      - "labels": int32 [N]; "difficult" and "crowd": bool [N];
      - "landmarks": float32 [N, P, 2], y and x, and "landmarks_mask": bool [N, P], where the data
        has any;
      - "image_id": int32 [], the place of the picture in `train_pictures` or `test_pictures`;
      - "size": int32 [2], height and width of the picture itself, upright, so that
        `Letterbox.fit(height, width, S).to_picture` leads back to its own pixels.

    Attributes:
        name: the name of the data set in logs and errors.
        train: the training split.
        test: the held-out split.
        class_names: the name of each label.
        image_shape: (S, S, C).
        train_pictures: the identities of the pictures of `train` in their source.
        test_pictures: the same for `test`.
        category_ids: the number of each class in its source; where the source has no numbers,
            they count from 1, as in COCO's files.
        landmark_names: the name of each of the P landmarks.
        landmark_pairs: landmarks that are each other's mirror images, by number.
        bits: the bits of values in image files with more than 8, see `pictures.bits_of`.
        notes: lines for the log about data that was left out or changed when it was read.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train_pictures: tuple[PictureId, ...]
    test_pictures: tuple[PictureId, ...]
    category_ids: tuple[int, ...]
    landmark_names: tuple[str, ...] = ()
    landmark_pairs: tuple[tuple[int, int], ...] = ()
    bits: int = 16
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """The number of classes; labels run from 0 to one less."""
        return len(self.class_names)


class _Scene(NamedTuple):
    number: int
    image: StoredImage
    objects: Objects


@dataclasses.dataclass(frozen=True)
class _Scenes(Sequence[_Scene]):
    """The pictures of a part with their objects; images are read on demand."""

    part: Part

    def __len__(self) -> int:
        return len(self.part.images)

    def __getitem__(self, index: int) -> _Scene:  # type: ignore[override]
        return _Scene(index, self.part.images[index], self.part.objects[index])


def load_detection(
    dataset: str = "digit_scenes",
    *,
    data_dir: PathLike | None = None,
    data_path: PathLike | None = None,
    image_size: int | None = None,
    in_memory_bytes: int = 2 << 30,
) -> DetectionData:
    """Loads a data set for detection and decodes it into memory if it fits there.

    Annotations with faults are treated by the rules of `dlcore.data.detection.objects`. Pictures
    without an object stay. A picture is turned upright by its EXIF orientation. Its boxes turn with
    it where the annotation states the size of the stored picture, and stay where it states no size,
    or the size of the upright picture (as for a half turn, where both are the same).

    Args:
        dataset: "digit_scenes", or "digit_scenes/one" with one object in each picture, which are
            always available, or a prepared TFDS data set such as voc/2007 or coco/2017.
        data_dir: the folder of prepared data sets; None means TFDS' own,
            ~/tensorflow_datasets.
        data_path: annotations in the layout of Pascal VOC (`detection.voc`), COCO
            (`detection.coco`) or YOLO (`detection.yolo`), instead of `dataset`.
        image_size: the side S of the square that every picture is fitted into without distortion;
            None keeps pictures that are all squares of one size.
        in_memory_bytes: the most memory that decoded pictures may take. A larger data set is read
            and decoded batch by batch.

    Raises:
        InputError: for data that is missing, not prepared or unreadable, for annotations that the
            readers refuse, for a picture of another size than its annotation says, and where there
            is no object to train on.
    """
    check_image_size(image_size)
    shape: tuple[int | None, int | None, int | None] = (None, None, None)
    bits = 16
    if data_path is not None:
        path = pathlib.Path(data_path).expanduser()
        name = str(path)
        found = _read_path(path, str(data_path))
        bits = pictures.bits_of(found.train.images)
    else:
        # Files of one's own need no TFDS, whose import takes 0.3 s.
        from dlcore.data.catalogue import prepared_builder
        from dlcore.data.detection.prepared import read_prepared

        builder = prepared_builder(dataset, data_dir)
        name = builder.info.full_name
        shape, found = read_prepared(builder)
    parts = found.train, found.test
    image_shape = _complete(shape, image_size, parts)
    most = max((len(o.labels) for part in parts for o in part.objects), default=0)
    notes = found.notes + _unseen(name, found)

    def decode(scene: _Scene, notes: list[str] | None = None) -> dict[str, np.ndarray]:
        return _decode(scene, image_shape, max(most, 1), bits, notes)

    seen: set[tuple[str, str]] = set()  # notes of pictures by their names

    def decode_and_note(scene: _Scene) -> dict[str, np.ndarray]:
        of_this: list[str] = []
        example = decode(scene, of_this)
        seen.update((note, scene.image.name) for note in of_this)
        return example

    records = [Records(_Scenes(part), decode_and_note) for part in parts]
    for split in records:
        # A fault that all pictures share should show now, not with the first batch.
        split.gather(np.zeros(1, int))
    count = sum(map(len, records))
    splits: Sequence[Split]
    if count * int(np.prod(image_shape)) <= in_memory_bytes:
        splits = [split.load() for split in records]
        among = f"{count:,} images"
    else:
        splits = [Records(split.source, decode) for split in records]
        sample = evenly_spaced(records[0], _SAMPLE)
        sample.gather(np.arange(len(sample)))
        among = f"{len(sample):,} images that were looked at"
    counts = Counter(note for note, _ in sorted(seen))
    notes += tuple(f"{name}: {n:,} of {among} {note}" for note, n in counts.items())
    train, test = (tuple(objects.picture for objects in part.objects) for part in parts)
    return DetectionData(
        name,
        splits[0],
        splits[1],
        found.class_names,
        image_shape,
        train,
        test,
        found.category_ids,
        found.landmark_names,
        mirror_pairs(found.landmark_names),
        bits,
        notes,
    )


def read_squares(
    paths: Sequence[PathLike], image_shape: tuple[int, int, int], bits: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Reads pictures without annotations in the same way as those of a data set.

    Args:
        paths: the paths of B pictures.
        image_shape: the shape (S, S, C) of the data set's pictures.
        bits: the bits of the data set.

    Returns:
        The pictures, uint8 [B, S, S, C], and the height and width of each, int32 [B, 2].

    Raises:
        InputError: when a picture cannot be read.
    """
    images = np.zeros((len(paths), *image_shape), np.uint8)
    sizes = np.zeros((len(paths), 2), np.int32)
    for at, path in enumerate(paths):
        with pictures.opened(StoredImage(pathlib.Path(path), 0, str(path))) as image:
            array = pictures.pixels(image, channels=image_shape[2], bits=bits)
        images[at] = fit_letterbox(array, image_shape[0])
        sizes[at] = array.shape[:2]
    return images, sizes


def fit_letterbox(image: np.ndarray, side: int) -> np.ndarray:
    """Fits a picture, uint8 [H, W, C], into the middle of a black square [S, S, C] of side S.

    Its longer side fills the square (`boxes.Letterbox`). Bilinear interpolation takes the mean of
    all pixels that become one.
    """
    height, width, channels = image.shape
    letterbox = Letterbox.fit(height, width, side)
    rows, columns = letterbox.size
    if (rows, columns) != (height, width):
        stored = Image.fromarray(image[..., 0] if channels == 1 else image)
        resized = stored.resize((columns, rows), Image.Resampling.BILINEAR)
        image = np.asarray(resized).reshape(rows, columns, channels)
    if rows == columns == side:
        return image
    square = np.zeros((side, side, channels), np.uint8)
    top, left = letterbox.top, letterbox.left
    square[top : top + rows, left : left + columns] = image
    return square


def _read_path(path: pathlib.Path, given: str) -> Annotated:
    if not given:
        raise InputError("the data path is empty; give a folder of annotated pictures")
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist; give a folder of annotated pictures")
        for is_one, read in _READERS:
            if is_one(path):
                return read(path)
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error
    raise InputError(
        f"{path} has none of the known layouts: Annotations/ and JPEGImages/ (Pascal VOC), "
        "annotations/*.json or one JSON file (COCO), data.yaml or classes.txt with images/ and "
        "labels/ (YOLO)"
    )


def _complete(
    shape: tuple[int | None, int | None, int | None],
    image_size: int | None,
    parts: tuple[Part, Part],
) -> tuple[int, int, int]:
    """Returns (S, S, C), read from the headers of the pictures where it is not given."""
    images = chain.from_iterable(part.images for part in parts)
    height, width, channels = shape
    side = image_size
    if side is None:
        sizes = {(height, width)} if height and width else {*map(size_of, images)}
        if len(sizes) > 1 or len({*next(iter(sizes))}) > 1:
            some = ", ".join(f"{h} x {w}" for h, w in sorted(sizes)[:3])
            raise InputError(
                f"pictures of {some}{' ...' if len(sizes) > 3 else ''} are not squares of one "
                "size; "
                "give --image_size to fit all into squares"
            )
        ((side, _),) = sizes
        images = chain.from_iterable(part.images for part in parts)
    if channels is None:
        channels = 1 if all(map(_is_gray, images)) else 3
    if channels not in pictures.MODES:
        raise InputError(f"images of {channels} channels are not supported; 1, 3 and 4 are")
    assert side is not None
    return side, side, channels


def _is_gray(image: StoredImage) -> bool:
    with pictures.opened(image) as opened:
        return pictures.is_gray(opened)


def _unseen(name: str, found: Annotated) -> tuple[str, ...]:
    """Returns the line for the log about classes without an object to train on.

    Raises:
        InputError: when no class has one.
    """
    labels = np.concatenate([o.labels for o in found.train.objects])
    counts = np.bincount(labels, minlength=len(found.class_names))
    if not counts.any():
        raise InputError(f"{name} has no object to train on; annotate some of its pictures")
    without = [c for c, count in zip(found.class_names, counts, strict=True) if not count]
    some = ", ".join([*without[:3], *(["..."] if len(without) > 3 else [])])
    of_all = f"{len(without):,} of {len(counts):,} classes"
    return (f"{name}: {of_all} have no object to train on ({some})",) if without else ()


def _decode(
    scene: _Scene,
    image_shape: tuple[int, int, int],
    most: int,
    bits: int,
    notes: list[str] | None,
) -> dict[str, np.ndarray]:
    number, stored, objects = scene
    with pictures.opened(stored) as image:
        turn = pictures.turn_of(image)
        array = pictures.pixels(image, channels=image_shape[2], bits=bits, notes=notes)
    height, width = array.shape[:2]
    boxes, landmarks = _turned(stored, objects, (height, width), turn)
    letterbox = Letterbox.fit(height, width, image_shape[0])
    count, points = objects.landmarks_mask.shape
    example = {
        "image": fit_letterbox(array, image_shape[0]),
        "boxes": np.zeros((most, 4), np.float32),
        "boxes_mask": np.arange(most) < count,
        "labels": np.zeros(most, np.int32),
        "difficult": np.zeros(most, bool),
        "crowd": np.zeros(most, bool),
        "image_id": np.asarray(number, np.int32),
        "size": np.array([height, width], np.int32),
    }
    example["boxes"][:count] = letterbox.to_square(absolute(boxes, height, width))
    for name in ("labels", "difficult", "crowd"):
        example[name][:count] = getattr(objects, name)
    if points:
        example["landmarks"] = np.zeros((most, points, 2), np.float32)
        example["landmarks_mask"] = np.zeros((most, points), bool)
        there = objects.landmarks_mask
        places = letterbox.to_square(landmarks * np.array([height, width], np.float64))
        example["landmarks"][:count] = np.where(there[..., None], places, 0)
        example["landmarks_mask"][:count] = there
    return example


def _turned(
    stored: StoredImage,
    objects: Objects,
    upright: tuple[int, int],
    turn: Image.Transpose | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes and landmarks of the upright picture, in shares of it."""
    boxes, landmarks = objects.boxes, objects.landmarks
    if objects.size in (None, upright):
        return boxes, landmarks
    if turn not in pictures.SWAPPING or objects.size != upright[::-1]:
        assert objects.size is not None
        raise InputError(
            f"image {stored.name} is {upright[0]} x {upright[1]}, and its boxes were drawn for "
            f"{objects.size[0]} x {objects.size[1]}; give the picture that they were drawn for"
        )
    ends = _turn_points(boxes.reshape(-1, 2, 2), turn)
    return np.concatenate([ends.min(1), ends.max(1)], 1), _turn_points(landmarks, turn)


def _turn_points(points: np.ndarray, turn: Image.Transpose) -> np.ndarray:
    """Turns points y, x (..., 2) in shares of a picture as one of `pictures.SWAPPING` does."""
    y, x = points[..., 0], points[..., 1]
    down = 1 - x if turn in (Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE) else x
    across = 1 - y if turn in (Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE) else y
    return np.stack([down, across], -1)
