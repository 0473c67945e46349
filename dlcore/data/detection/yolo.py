"""Reads pictures with YOLO's text files: a line "class x y width height" for each object.

Centre and sides are in shares of the picture, as it is shown upright; classes count from 0. A
picture .../images/.../NAME.jpg has its objects in .../labels/.../NAME.txt. A picture without that
file, or with an empty one, has no object, and stays; label files without a picture are left out and
counted.

data.yaml names the classes (`names`, a list or a table by number) and the parts (`train`, and
`test` or `val`; each a folder of pictures, a text file with a path in each line, or a list of
those), relative to `path`, or to its own folder. Without it classes.txt, beside images/ or in
labels/, names the classes, images/train and images/val (or test, valid) are the parts, and where
these are missing a fixed fifth is held out.
"""

import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tqdm

from dlcore.boxes import convert
from dlcore.data.detection.objects import (
    Annotated,
    Objects,
    Part,
    PictureId,
    Rules,
    held_out_fifth,
)
from dlcore.data.image_folder import HELD_OUT, TRAIN, note, shown
from dlcore.data.pictures import StoredImage
from dlcore.errors import InputError
from dlcore.files import read_text

_YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_IMAGES = {
    ".bmp",
    ".gif",
    ".jp2",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
}
_LAYOUT = "expected data.yaml with names, train and val, or classes.txt beside images/ and labels/"


def is_yolo(path: pathlib.Path) -> bool:
    """Returns whether `read_yolo` can read a folder or file."""
    if path.is_file():
        return path.suffix.lower() in (".yaml", ".yml")
    return any((path / name).is_file() for name in _YAML) or _classes_file(path) is not None


def read_yolo(path: pathlib.Path) -> Annotated:
    """Reads the text files of a folder, or of a data.yaml, and lists its pictures.

    Raises:
        InputError: when the layout is another one, a file cannot be read, a line does not have
            five numbers or its class has no name, a picture is in both parts, two pictures share a
            text file, or a part has no picture.
    """
    return _Reader(path).read()


class _Reader:
    """A reader of one folder, which counts what it leaves out."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._left_out: dict[str, list[str]] = {}
        self._rules = Rules()
        self._labels_read: dict[pathlib.Path, pathlib.Path] = {}

    def read(self) -> Annotated:
        if self._path.is_file():
            names, parts = self._from_yaml(self._path)
        elif found := [self._path / n for n in _YAML if (self._path / n).is_file()]:
            names, parts = self._from_yaml(found[0])
        else:
            names, parts = self._from_folders()
        if len(parts) == 2 and (both := sorted({*parts[0]} & {*parts[1]})):
            raise InputError(
                f"{len(both):,} pictures of {self._path}, such as {shown(both[0])}, are both to "
                "train on and to test on; a picture belongs to one part"
            )
        made = [self._part(part, names) for part in parts]
        train, test = made if len(made) == 2 else held_out_fifth(*made[0])
        if not train.images or not test.images:
            raise InputError(
                f"{self._path} has no pictures to train on, or none to test on; {_LAYOUT}"
            )
        self._orphans()
        notes = tuple(note(self._path, kind, names) for kind, names in self._left_out.items())
        return Annotated(
            tuple(names),
            tuple(range(1, len(names) + 1)),
            train,
            test,
            (),
            notes + self._rules.notes(str(self._path)),
        )

    def _from_yaml(self, file: pathlib.Path) -> tuple[list[str], list[list[pathlib.Path]]]:
        table = _read_yaml(file)
        names = _class_names(file, table)
        root = file.parent / str(table.get("path") or "")
        if not root.is_dir():
            # Tools that make data.yaml write the folder of the machine that they ran on.
            root = file.parent
        key = next((key for key in ("test", "val", "valid") if table.get(key)), None)
        if not table.get("train") or key is None:
            raise InputError(f"{file} lacks train, and val or test; {_LAYOUT}")
        # A test part may be named that nobody was given.
        if key == "test" and table.get("val") and not [*self._listed(file, root, table["test"])]:
            key = "val"
        return names, [[*self._listed(file, root, table[part])] for part in ("train", key)]

    def _from_folders(self) -> tuple[list[str], list[list[pathlib.Path]]]:
        file, images = _classes_file(self._path), self._path / "images"
        if file is None or not images.is_dir():
            raise InputError(f"{self._path} has no images/, or no classes.txt; {_LAYOUT}")
        names = [line.strip() for line in read_text(file).splitlines() if line.strip()]
        if not names:
            raise InputError(f"{file} names no class; write one in each line")
        folders = {item.name.casefold(): item for item in images.iterdir() if item.is_dir()}
        train = next((folders[name] for name in TRAIN if name in folders), None)
        test = next((folders[name] for name in HELD_OUT if name in folders), None)
        if train is None or test is None:
            return names, [[*_pictures_in(images)]]
        return names, [[*_pictures_in(folder)] for folder in (train, test)]

    def _listed(self, file: pathlib.Path, root: pathlib.Path, given: Any) -> Iterator[pathlib.Path]:
        """Yields the pictures of a part of data.yaml."""
        for item in given if isinstance(given, list) else [given]:
            if not isinstance(item, str):
                raise InputError(f"{file} has the part {item!r}; give a folder of pictures")
            place = root / item
            if not place.exists() and item.startswith("../"):
                place = root / item[3:]  # as Roboflow writes it, from a folder that is not there
            if place.is_dir():
                yield from _pictures_in(place)
            elif place.is_file():
                for line in read_text(place).splitlines():
                    if not line.strip():
                        continue
                    picture = place.parent / line.strip()
                    if not picture.is_file():
                        picture = root / line.strip()
                    if picture.is_file():
                        yield picture
                    else:
                        self._left_out.setdefault("left out, no file", []).append(shown(picture))

    def _part(self, files: list[pathlib.Path], names: list[str]) -> Part:
        objects = []
        for file in tqdm.tqdm(files, desc="reading annotations", delay=2, leave=False):
            objects.append(self._objects(file, names))
        return Part([StoredImage(file, 0, shown(file)) for file in files], objects)

    def _objects(self, file: pathlib.Path, names: list[str]) -> Objects:
        labels = _labels_of(file)
        if labels in self._labels_read:
            raise InputError(
                f"{shown(labels)} belongs to two pictures, {shown(self._labels_read[labels])} and "
                f"{shown(file)}; remove or rename one"
            )
        self._labels_read[labels] = file
        rows: list[list[float]] = []
        if labels.is_file():
            lines = enumerate(read_text(labels).splitlines(), 1)
            rows = [
                _row(labels, number, line, len(names)) for number, line in lines if line.strip()
            ]
        else:
            self._left_out.setdefault(
                "pictures without a text file, taken as without an object", []
            ).append(shown(file))
        array = np.array(rows, np.float64).reshape(-1, 5)
        return self._rules.objects(
            PictureId(file.stem, file.name),
            None,
            convert(array[:, 1:], "centre_size", "corners"),
            array[:, 0].astype(np.int32).tolist(),
        )

    def _orphans(self) -> None:
        """Notes the text files that belong to no picture."""
        folders = {labels.parent for labels in self._labels_read}
        orphans = [
            shown(file)
            for folder in sorted(folders)
            for file in sorted(folder.glob("*.txt"))
            if file not in self._labels_read and file.name != "classes.txt"
        ]
        if orphans:
            self._left_out["left out, text files without a picture"] = orphans


def _classes_file(path: pathlib.Path) -> pathlib.Path | None:
    files = [path / "classes.txt", *sorted(path.glob("labels/**/classes.txt"))]
    return next((file for file in files if file.is_file()), None)


def _read_yaml(file: pathlib.Path) -> dict[Any, Any]:
    import yaml  # type: ignore[import-untyped]

    try:
        table = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1} of " if mark else ""
        reason = getattr(error, "problem", None) or "it cannot be read"
        raise InputError(f"{line}{file} is not YAML ({reason}); repair it") from None
    except (RecursionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read {file} as YAML: {error}") from None
    if not isinstance(table, dict):
        raise InputError(f"{file} is not a table in YAML; {_LAYOUT}")
    return table


def _class_names(file: pathlib.Path, table: dict[Any, Any]) -> list[str]:
    names = table.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise InputError(f"{file} numbers its names {[*names][:5]}; number them from 0 on")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise InputError(f"{file} has no names of classes; give them as names: [cat, dog]")
    if table.get("nc") not in (None, len(names)):
        raise InputError(f"{file} has nc: {table['nc']} and {len(names)} names; correct one")
    return [str(name) for name in names]


def _row(file: pathlib.Path, number: int, line: str, classes: int) -> list[float]:
    fields = line.split()
    if len(fields) != 5:
        raise InputError(
            f"line {number} of {shown(file)} has {len(fields)} values; it must be class, x, y, "
            "width, height"
        )
    try:
        values = [float(field) for field in fields]
    except ValueError:
        raise InputError(
            f"line {number} of {shown(file)} is {line.strip()[:60]!r}; it must be five numbers: "
            "class, x, y, width, height"
        ) from None
    if values[0] not in range(classes):
        raise InputError(
            f"line {number} of {shown(file)} has the class {fields[0]}; {classes} classes have "
            f"names, 0..{classes - 1}"
        )
    return values


def _labels_of(file: pathlib.Path) -> pathlib.Path:
    """Returns the text file of a picture, beside it or in labels/ instead of images/."""
    parts = [*file.parts]
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images":
            parts[at] = "labels"
            break
    return pathlib.Path(*parts).with_suffix(".txt")


def _pictures_in(folder: pathlib.Path) -> Iterable[pathlib.Path]:
    """Yields the pictures in a folder and in those within it, by name."""
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in _IMAGES and not file.name.startswith(".") and file.is_file():
            yield file
