"""Reads a folder in the layout of Pascal VOC: Annotations, JPEGImages and ImageSets/Main.

The parts are lists of names in ImageSets/Main. Where there is test.txt, it is the test, and
trainval.txt, or else train.txt, is the training part; otherwise val.txt is the test and train.txt
the training part. Where lists for both are missing, a fixed fifth of all annotated pictures is held
out. A listed name without an annotation (Pascal VOC 2012 publishes none for its test) or without a
picture is left out and counted.

Pascal VOC counts pixels from 1, and a box includes its last pixels: xmin..xmax becomes
[xmin - 1, xmax). Shapes: n objects of a picture.
"""

import os
import pathlib
import xml.etree.ElementTree as ElementTree
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from xml.parsers import expat

import tqdm

from dlcore.data.detection.objects import (
    Annotated,
    Objects,
    Part,
    PictureId,
    Rules,
    held_out_fifth,
    size_of,
    valid_size,
)
from dlcore.data.image_folder import note, shown
from dlcore.data.pictures import StoredImage
from dlcore.errors import InputError
from dlcore.files import read_text, read_whole

# The lists of the two parts, of which the first pair that is there counts.
_PARTS = (("trainval", "test"), ("train", "test"), ("train", "val"), ("trainval", "val"))
# Where each element keeps the line on which it begins; no attribute of XML has this name.
_LINE = " line"


def is_voc(path: pathlib.Path) -> bool:
    """Returns whether a folder has the layout."""
    return (path / "Annotations").is_dir()


def read_voc(path: pathlib.Path) -> Annotated:
    """Reads the annotations of a folder and lists its pictures without decoding one.

    Raises:
        InputError: when an annotation is not XML or lacks a name or a box, when a picture has two
            files, when a picture is in both parts, or when a part has no picture.
    """
    return _Reader(path).read()


class _Box(NamedTuple):
    """One object of an annotation, as it is written there."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


class _Reader:
    """A reader of one folder, which counts what it leaves out."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._left_out: dict[str, list[str]] = {}
        self._rules = Rules()
        folder = path / "JPEGImages"
        if not folder.is_dir():
            raise InputError(f"{path} has Annotations/ but no JPEGImages/; put its pictures there")
        self._files: dict[str, list[pathlib.Path]] = {}
        for file in sorted(folder.iterdir()):
            if not file.name.startswith(".") and file.is_file():
                self._files.setdefault(file.stem, []).append(file)

    def read(self) -> Annotated:
        annotated = {
            file.stem: file
            for file in sorted((self._path / "Annotations").iterdir())
            if file.suffix.lower() == ".xml" and not file.name.startswith(".")
        }
        parts = self._lists()
        listed = {name for names in parts for name in names} if parts else {*annotated}
        if not parts:
            unknown = [shown(name) for name in self._files if name not in annotated]
            self._note("left out, pictures without an annotation", unknown)
        self._note("left out, without an annotation", [n for n in listed if n not in annotated])
        self._note(
            "left out, annotations without a picture",
            [n for n in listed if n in annotated and n not in self._files],
        )
        names = [
            [name for name in part if name in annotated and name in self._files]
            for part in (parts or ([*annotated],))
        ]
        found = [self._boxes(annotated, part) for part in names]
        classes = sorted({box.name for part in found for _, boxes in part for box in boxes})
        made = [self._part(part, boxes, classes) for part, boxes in zip(names, found, strict=True)]
        train, test = made if len(made) == 2 else held_out_fifth(*made[0])
        if not train.images or not test.images:
            raise InputError(
                f"{self._path} has no annotated pictures to train on, or none to test on; a "
                "picture JPEGImages/NAME.jpg needs Annotations/NAME.xml"
            )
        notes = tuple(note(self._path, kind, names) for kind, names in self._left_out.items())
        return Annotated(
            tuple(classes),
            tuple(range(1, len(classes) + 1)),
            train,
            test,
            (),
            notes + self._rules.notes(str(self._path)),
        )

    def _lists(self) -> tuple[list[str], list[str]] | None:
        """Returns the names to train on and to test on; None where no lists define them."""
        folder = self._path / "ImageSets" / "Main"
        for train, test in _PARTS:
            if (folder / f"{train}.txt").is_file() and (folder / f"{test}.txt").is_file():
                break
        else:
            if (folder / "train.txt").is_file() or (folder / "trainval.txt").is_file():
                self._note("without test.txt or val.txt, a fifth is held out", ["ImageSets/Main"])
            return None
        parts = [self._list(folder / f"{part}.txt") for part in (train, test)]
        if both := sorted({*parts[0]} & {*parts[1]}):
            raise InputError(
                f"{len(both):,} names, such as {both[0]}, are both in {train}.txt and in "
                f"{test}.txt of {folder}; a picture belongs to one part"
            )
        others = sorted(
            file.name
            for file in folder.glob("*.txt")
            if file.stem not in (train, test) and file.stem in ("train", "val", "trainval")
        )
        if train != "trainval":
            self._note(f"not read, beside {train}.txt and {test}.txt", others)
        return parts[0], parts[1]

    def _list(self, path: pathlib.Path) -> list[str]:
        names = [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
        again = [name for name, count in Counter(names).items() if count > 1]
        self._note("named again in a list, read once", again)
        return [*dict.fromkeys(names)]

    def _boxes(
        self, annotated: dict[str, pathlib.Path], names: Sequence[str]
    ) -> list[tuple[tuple[int, int] | None, list[_Box]]]:
        progress = tqdm.tqdm(names, desc="reading annotations", delay=2, leave=False)
        return [_read(annotated[name]) for name in progress]

    def _part(
        self,
        names: Sequence[str],
        found: Iterable[tuple[tuple[int, int] | None, list[_Box]]],
        classes: Sequence[str],
    ) -> Part:
        numbers = {name: number for number, name in enumerate(classes)}
        images, objects = [], []
        for name, (size, boxes) in zip(names, found, strict=True):
            file, *others = self._files[name]
            if others:
                raise InputError(
                    f"{self._path} has two pictures {shown(name)}: {shown(file.name)} and "
                    f"{shown(others[0].name)}; remove the one that {shown(name)}.xml does not "
                    "belong to"
                )
            image = StoredImage(file, 0, shown(file))
            objects.append(self._objects(image, PictureId(name, file.name), size, boxes, numbers))
            images.append(image)
        return Part(images, objects)

    def _objects(
        self,
        image: StoredImage,
        picture: PictureId,
        size: tuple[int, int] | None,
        boxes: list[_Box],
        numbers: dict[str, int],
    ) -> Objects:
        # Tools that do not know the size write 0 x 0, or nothing.
        height, width = size = size or size_of(image)
        corners = [
            ((top - 1) / height, (left - 1) / width, bottom / height, right / width)
            for top, left, bottom, right in (box.corners for box in boxes)
        ]
        return self._rules.objects(
            picture,
            size,
            corners,
            [numbers[box.name] for box in boxes],
            difficult=[box.difficult for box in boxes],
        )

    def _note(self, kind: str, names: Iterable[str]) -> None:
        if found := sorted(map(shown, names)):
            self._left_out.setdefault(kind, []).extend(found)


def parse_xml(path: pathlib.Path) -> ElementTree.Element:
    """Returns the root of an XML file; each element has its line as the attribute " line".

    Entities are refused, because a few lines of them can expand to gigabytes or include local
    files.

    Raises:
        InputError: when the file cannot be read, is not XML or declares an entity; the message
            names the line.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, {_LINE: str(parser.CurrentLineNumber)})

    def refuse(*given: object) -> None:
        raise InputError(
            f"line {parser.CurrentLineNumber} of {shown(path)} declares an entity, which no "
            "annotation needs; write out its content"
        )

    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(read_whole(path), True)
    except expat.ExpatError as error:
        raise InputError(
            f"line {error.lineno} of {shown(path)} is not XML ({expat.ErrorString(error.code)}); "
            "repair or remove the file"
        ) from None
    # Encodings that the parser does not know raise LookupError, packed files the others.
    except (OSError, EOFError, zlib.error, LookupError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {shown(path)}: {reason}") from None
    return builder.close()


def _read(path: pathlib.Path) -> tuple[tuple[int, int] | None, list[_Box]]:
    """Returns height and width, or None where they are not given, and the objects of a file."""
    root = parse_xml(path)
    sides = [_text(root, f"size/{name}") for name in ("height", "width")]
    size = None
    if all(sides):
        height, width = (_number(path, root, f"size/{name}") for name in ("height", "width"))
        size = valid_size(height, width)
    return size, [*_objects(path, root)]


def _objects(path: pathlib.Path, root: ElementTree.Element) -> Iterator[_Box]:
    for element in root.iterfind("object"):
        name = _text(element, "name")
        if not name:
            raise InputError(f"{_place(path, element)} has an object without a name; give it one")
        top, left, bottom, right = (
            _number(path, element, f"bndbox/{side}") for side in ("ymin", "xmin", "ymax", "xmax")
        )
        yield _Box(name, (top, left, bottom, right), _text(element, "difficult") == "1")


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _number(path: pathlib.Path, element: ElementTree.Element, tag: str) -> float:
    found = element.find(tag)
    if found is None:
        raise InputError(f"{_place(path, element)} has {element.tag} without {tag}; add it")
    text = (found.text or "").strip()
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"{_place(path, found)} has {found.tag} {text[:40]!r}; it must be a number"
        ) from None


def _place(path: pathlib.Path, element: ElementTree.Element) -> str:
    return f"line {element.get(_LINE)} of {shown(os.fspath(path))}"
