"""Reads the objects of a prepared data set of TensorFlow Datasets.

The split "train" is for training and "test" for the test, or "validation" where the test has no
objects, as in COCO and Pascal VOC 2012. Boxes are as the builder wrote them. The builder of Pascal
VOC leaves y_min and x_min one pixel too large (it divides pixels that count from 1); only the
reader of the folder (`voc`) corrects this.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dlcore.data import tfds
from dlcore.data.detection.objects import Annotated, Objects, Part, PictureId, Rules
from dlcore.errors import InputError

_CROWD = ("is_crowd", "crowd")
_DIFFICULT = ("is_difficult", "difficult")


def read_prepared(
    builder: Any,
) -> tuple[tuple[int | None, int | None, int], Annotated]:
    """Returns the shape (H, W, C) of a data set's images, where it is fixed, and its objects.

    Args:
        builder: the builder of a data set, from `catalogue.prepared_builder`.

    Raises:
        InputError: when the data set has no objects, or no split to train on or to test on.
    """
    shape, class_names, landmark_names = tfds.object_features(builder)
    name = builder.info.full_name
    splits = tfds.filled_splits(builder)
    held_out = [split for split in ("test", "validation") if split in splits]
    if "train" not in splits or not held_out:
        raise InputError(
            f"data set {name!r} has the splits {', '.join(splits) or 'none'}; it needs train, and "
            "test or validation"
        )
    rules = Rules(landmarks=len(landmark_names))
    train = _part(builder, "train", rules)
    for split in held_out:
        test = _part(builder, split, rules)
        if any(len(objects.labels) for objects in test.objects):
            break
    notes = rules.notes(name)
    if others := sorted({*held_out} - {split}):
        notes = (*notes, f"{name}: tested on the split {split}; not read: {', '.join(others)}")
    ids = tuple(range(1, len(class_names) + 1))
    return shape, Annotated(class_names, ids, train, test, landmark_names, notes)


def _part(builder: Any, split: str, rules: Rules) -> Part:
    objects = [
        _objects(
            rules,
            PictureId(
                next(found for found in (number, name, at) if found is not None),
                name or f"{split}/{at}",
            ),
            table,
        )
        for at, (number, name, table) in enumerate(tfds.read_objects(builder, split))
    ]
    return Part(tfds.StoredImages(builder, split, labelled=False), objects)


def _objects(rules: Rules, picture: PictureId, table: Mapping[str, np.ndarray]) -> Objects:
    boxes = np.asarray(table["bbox"], np.float64).reshape(-1, 4)
    flags = [
        next((np.asarray(table[name]) for name in names if name in table), None)
        for names in (_DIFFICULT, _CROWD)
    ]
    landmarks = None
    if rules.landmarks:
        landmarks = np.asarray(table["landmarks"], np.float64).reshape(-1, rules.landmarks, 2)
    return rules.objects(
        picture,
        None,
        boxes,
        np.asarray(table["label"]).tolist(),
        difficult=flags[0],
        crowd=flags[1],
        landmarks=landmarks,
        landmarks_mask=None if landmarks is None else np.ones(landmarks.shape[:2], bool),
    )
