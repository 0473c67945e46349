"""Reads COCO's JSON files and the folders of their pictures.

A data set is a folder with annotations/instances_PART.json and the pictures in PART/ (COCO's own
layout, where PART is train2017, val2017 and so on), with PART/_annotations.coco.json beside the
pictures (Roboflow's), or with the files in the folder itself; or it is one JSON file. A single file
serves both parts: a fixed fifth of its pictures is held out. Pictures are looked for in a folder
of the part's name, in images/ and beside the file.

- Boxes are x, y, width, height in continuous pixels from 0, as in dlcore. A crowd is read as the
  box around it; its mask is not read.
- Key points are given as pixel indices, so half a pixel is added to their coordinates. Where
  person_keypoints_PART.json lies beside instances_PART.json, its key points are joined to the
  objects of the same id. All labelled key points count as present, even hidden ones (v = 1 and 2).
- Categories may have gaps in their ids: labels count from 0 in the order of the ids, which
  `Annotated.category_ids` keeps. A picture without an annotation is one without an object.
- Annotations of pictures that the file does not list, and pictures without their file, are left out
  and counted.
"""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tqdm

from dlcore.boxes import convert, relative
from dlcore.data.coco_files import (
    kind_of_part,
    listed_pictures,
    picture_folder,
    picture_folders,
    read_lists,
    require,
)
from dlcore.data.detection.objects import (
    Annotated,
    Part,
    PictureId,
    Rules,
    held_out_fifth,
    numbers,
    size_of,
    valid_size,
)
from dlcore.data.image_folder import note, shown
from dlcore.data.pictures import StoredImage
from dlcore.errors import InputError

_LAYOUT = (
    "expected annotations/instances_train*.json and instances_val*.json, or "
    "train/_annotations.coco.json and valid/_annotations.coco.json"
)
_OTHERS = ("captions", "stuff", "panoptic", "image_info")  # what files of no boxes begin with
_ROBOFLOW = "_annotations.coco"
_LISTS = ("images", "annotations", "categories")  # of a file of boxes


class _Source(NamedTuple):
    """A JSON file, with its part, whether it holds key points, and the folders of its pictures.

    `folders` are the folders to look for pictures in, the likeliest first.
    """

    file: pathlib.Path
    part: str
    key_points: bool
    folders: tuple[pathlib.Path, ...]


class _Categories(NamedTuple):
    names: tuple[str, ...]
    ids: tuple[int, ...]
    landmark_names: tuple[str, ...]


def is_coco(path: pathlib.Path) -> bool:
    """Returns whether `read_coco` can read a folder or file."""
    if path.is_file():
        return path.suffix.lower() == ".json"
    return any(True for _ in _sources(path))


def read_coco(path: pathlib.Path) -> Annotated:
    """Reads the annotations of a folder or of one JSON file, and lists its pictures.

    Raises:
        InputError: when a file is not JSON (the message names the line) or lacks what COCO's files
            have, two pictures or two categories share an id, an annotation has an unknown category
            or no box of four numbers, the parts have different categories, or a part has no
            picture.
    """
    return _Reader(path).read()


def _sources(path: pathlib.Path) -> Iterable[_Source]:
    """Yields the files of a folder that have boxes or key points."""
    files = [path] if path.is_file() else [*path.glob("annotations/*.json"), *path.glob("*.json")]
    if path.is_dir():
        files += path.glob(f"*/{_ROBOFLOW}.json")
    for file in sorted(files):
        stem = file.stem.lower()
        if file.name.startswith(".") or stem.startswith(_OTHERS):
            continue
        if stem == _ROBOFLOW:
            yield _Source(file, file.parent.name, False, (file.parent,))
            continue
        part = file.stem.rpartition("_")[2]
        yield _Source(file, part, "keypoints" in stem, picture_folders(file, part))


class _Reader:
    """A reader of one data set, which counts what it leaves out."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._left_out: dict[str, list[str]] = {}

    def read(self) -> Annotated:
        parts: dict[str, list[_Source]] = {}
        for source in _sources(self._path):
            parts.setdefault(kind_of_part(source.part) if self._path.is_dir() else "", []).append(
                source
            )
        held_out = next((name for name in ("test", "val") if name in parts), None)
        if len(parts) == 1:
            chosen = [*parts]
        elif "train" in parts and held_out is not None:
            chosen = ["train", held_out]
            if others := [s.file.name for name in parts if name not in chosen for s in parts[name]]:
                self._left_out[f"not read, neither of train nor of {held_out}"] = others
        else:
            there = ", ".join(source.file.name for part in parts.values() for source in part)
            raise InputError(f"{self._path} has {there or 'no JSON file of boxes'}; {_LAYOUT}")
        tables = [self._table(parts[name]) for name in chosen]
        categories = [_categories(source, table) for source, table, _ in tables]
        first = categories[0]
        for other, (source, _, _) in zip(categories[1:], tables[1:], strict=True):
            if other[:2] != first[:2]:
                raise InputError(
                    f"{source.file} has other categories than {tables[0][0].file}; both parts of a "
                    "data set have the same ones"
                )
        names = max((found.landmark_names for found in categories), key=len)
        self._rules = Rules(landmarks=len(names))
        made = [self._part(*table, first) for table in tables]
        train, test = made if len(made) == 2 else held_out_fifth(*made[0])
        if not train.images or not test.images:
            raise InputError(
                f"{self._path} has no pictures to train on, or none to test on, of those that its "
                "files name; put them into a folder of the part's name, or into images/"
            )
        notes = tuple(note(self._path, kind, names) for kind, names in self._left_out.items())
        return Annotated(
            first.names, first.ids, train, test, names, notes + self._rules.notes(str(self._path))
        )

    def _table(
        self, sources: list[_Source]
    ) -> tuple[_Source, dict[str, Any], dict[Any, list[Any]]]:
        """Returns the file of a part, its content, and the key points of objects by their ids."""
        boxes = [source for source in sources if not source.key_points]
        points = [source for source in sources if source.key_points]
        if len(boxes) > 1 or len(points) > 1:
            several = ", ".join(source.file.name for source in (boxes[:9] or points[:9]))
            raise InputError(
                f"{self._path} has several files of one part: {several}; give a folder with one"
            )
        source = (boxes or points)[0]
        table = read_lists(source.file, _LISTS)
        joined: dict[Any, list[Any]] = {}
        if boxes and points:
            other = read_lists(points[0].file, _LISTS)
            joined = {
                annotation["id"]: annotation["keypoints"]
                for annotation in other["annotations"]
                if isinstance(annotation, dict) and {"id", "keypoints"} <= annotation.keys()
            }
            named = {
                category.get("id"): category
                for category in other["categories"]
                if isinstance(category, dict)
            }
            for category in table["categories"]:
                if isinstance(category, dict) and category.get("id") in named:
                    category.setdefault("keypoints", named[category["id"]].get("keypoints", []))
        return source, table, joined

    def _part(
        self,
        source: _Source,
        table: dict[str, Any],
        joined: dict[Any, list[Any]],
        categories: _Categories,
    ) -> Part:
        file = shown(source.file)
        label_of = {number: label for label, number in enumerate(categories.ids)}
        listed = listed_pictures(file, table)
        annotations: dict[Any, list[tuple[str, dict[str, Any]]]] = {key: [] for key in listed}
        unknown = []
        for at, annotation in enumerate(table["annotations"]):
            where = f"annotation {at} of {file}"
            require(annotation, where, "image_id", "category_id", "bbox")
            where = f"annotation {at} (id {annotation.get('id')}) of {file}"
            try:
                of_picture = annotations.get(annotation["image_id"])
                known = annotation["category_id"] in label_of
            except TypeError:
                raise InputError(f"{where} has an id that is not a number; correct it") from None
            if not known:
                raise InputError(
                    f"{where} has the category {annotation['category_id']!r}, which is not in its "
                    f"list; add it to the categories"
                )
            if of_picture is None:
                unknown.append(str(annotation["image_id"]))
            else:
                of_picture.append((where, annotation))
        if unknown:
            self._left_out["left out, annotations of pictures that are not listed"] = unknown
        folder = picture_folder(source.folders, listed)
        images, objects, missing = [], [], []
        progress = tqdm.tqdm(listed.items(), desc="reading annotations", delay=2, leave=False)
        for key, listing in progress:
            path = folder / listing["file_name"]
            if not path.is_file():
                missing.append(shown(path))
                continue
            image = StoredImage(path, 0, shown(path))
            height, width = size = valid_size(
                listing.get("height"), listing.get("width")
            ) or size_of(image)
            own = annotations[key]
            points, mask = self._key_points(own, joined, size)
            given = [
                numbers(annotation["bbox"], 4, f"the box of {where}") for where, annotation in own
            ]
            corners = convert(np.array(given, np.float64).reshape(-1, 4), "corner_size", "corners")
            objects.append(
                self._rules.objects(
                    PictureId(key, listing["file_name"]),
                    size,
                    relative(corners, height, width),
                    [label_of[annotation["category_id"]] for _, annotation in own],
                    crowd=[bool(annotation.get("iscrowd", 0)) for _, annotation in own],
                    landmarks=points,
                    landmarks_mask=mask,
                )
            )
            images.append(image)
        if missing:
            self._left_out.setdefault("left out, no file", []).extend(missing)
        if source.folders[0].is_dir() and folder == source.folders[0]:
            names = {listing["file_name"] for listing in listed.values()}
            extra = [
                shown(path)
                for path in sorted(folder.iterdir())
                if path.is_file()
                and path.suffix != ".json"
                and not path.name.startswith(".")
                and path.name not in names
            ]
            if extra:
                kind = "left out, files in folders of pictures that no JSON file lists"
                self._left_out.setdefault(kind, []).extend(extra)
        return Part(images, objects)

    def _key_points(
        self,
        annotations: list[tuple[str, dict[str, Any]]],
        joined: Mapping[Any, list[Any]],
        size: tuple[int, int],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns landmarks [n, P, 2] in shares of the picture, and which are present [n, P]."""
        count = self._rules.landmarks
        points = np.zeros((len(annotations), count, 2))
        mask = np.zeros((len(annotations), count), bool)
        for at, (where, annotation) in enumerate(annotations):
            given = annotation.get("keypoints") or joined.get(annotation.get("id"))
            if given and count:
                row = np.array(numbers(given, 3 * count, f"keypoints of {where}"))
                x, y, visible = row.reshape(count, 3).T
                points[at] = np.stack([y + 0.5, x + 0.5], -1) / size
                mask[at] = visible > 0
        return points, mask


def _categories(source: _Source, table: dict[str, Any]) -> _Categories:
    file = shown(source.file)
    found: dict[int, dict[str, Any]] = {}
    for at, category in enumerate(table["categories"]):
        require(category, f"category {at} of {file}", "id", "name")
        if not isinstance(category["id"], int):
            raise InputError(f"category {at} of {file} has the id {category['id']!r}, no number")
        if category["id"] in found:
            raise InputError(
                f"{file} has two categories of the id {category['id']}; number them differently"
            )
        found[category["id"]] = category
    if not found:
        raise InputError(f"{file} lists no category; add those that its annotations have")
    points = {tuple(map(str, category.get("keypoints") or ())) for category in found.values()}
    points.discard(())
    if len(points) > 1:
        raise InputError(
            f"{file} has categories with different key points; keep those of one, the same ones "
            "for all that have any"
        )
    ids = sorted(found)
    return _Categories(
        tuple(str(found[number]["name"]) for number in ids),
        tuple(ids),
        points.pop() if points else (),
    )
