"""Loads pictures and the texts that describe them, from a data set or the user's files.

Shapes: H W C the height, width and channels of a picture.

The user's own files are

- COCO's JSON (Lin et al. 2014): a file, or a folder with annotations/captions_PART.json and the
  pictures in PART/, where PART is train2017, val2017 and so on;
- a table, in which each line has the path of a picture, a tab and a caption: a file, or a folder
  with one named train and one named test. Paths are relative to the table's folder or to images/
  within it; one that ends in #0, #1 and so on names the same picture without it, as Flickr's
  tables have it.

A picture may have several captions. A single file serves both parts: a fixed fifth of its pictures
is held out.
"""

import dataclasses
import os
import pathlib
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dlcore.data import pictures
from dlcore.data.coco_files import (
    kind_of_part,
    listed_pictures,
    picture_folder,
    picture_folders,
    read_lists,
    require,
)
from dlcore.data.image_folder import note, shown
from dlcore.data.images import check_image_size, decoded_parts
from dlcore.data.pictures import StoredImage
from dlcore.data.sources import Batch, Split
from dlcore.data.text import files
from dlcore.data.text.pairs import Pairs
from dlcore.errors import InputError

PathLike = str | os.PathLike[str]

_PREFIX = "captions"  # of the names of COCO's files
_LAYOUT = (
    "give a table of PICTURE, a tab and CAPTION, COCO's captions_*.json, or a folder with one of "
    "them for train and for test or val"
)
_HEADER = ("image", "file", "filename", "file_name", "path", "picture")
_TABLES = (".tsv", ".csv", ".txt", ".token")
_KINDS = {"train": "train", "val": "valid", "dev": "valid", "test": "test"}
_NUMBERED = re.compile(r"#\d+$")


@dataclasses.dataclass(frozen=True)
class Captioned:
    """Pictures with captions.

    Attributes:
        images: N pictures; an example is {"image": uint8 [H, W, C]}.
        captions: the captions of each picture, one or more.
    """

    images: Split
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.captions)

    def subset(self, indices: np.ndarray) -> "Captioned":
        """Returns the pictures at `indices` [n] with their captions."""
        return Captioned(
            self.images.subset(indices), tuple(self.captions[int(index)] for index in indices)
        )

    @property
    def pairs(self) -> tuple[np.ndarray, list[str]]:
        """The number of the picture, int [M], and the text of each of the M captions, in order."""
        numbers = np.repeat(np.arange(len(self)), [len(of) for of in self.captions])
        return numbers, [text for of in self.captions for text in of]


@dataclasses.dataclass(frozen=True)
class CaptionData:
    """Pictures with captions in three parts.

    Attributes:
        name: the name of the data in logs and errors.
        train: the pictures to train on.
        valid: pictures that are held out for validation, if there are any.
        test: pictures that are held out for the test.
        image_shape: (H, W, C) of every picture.
        bits: the bits of values in image files with more than 8, see `pictures.bits_of`.
        notes: lines for the log about data that was left out or changed when it was read.
    """

    name: str
    train: Captioned
    valid: Captioned | None
    test: Captioned
    image_shape: tuple[int, int, int]
    bits: int = 16
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class PictureTexts:
    """A split of the captions of pictures as token ids, each with its picture.

    Attributes:
        images: the pictures.
        pictures: the number of the picture of each of the M captions, int [M].
        targets: the captions, as pairs with an empty source and a caption as target.
    """

    images: Split
    pictures: np.ndarray
    targets: Pairs

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens that each caption is padded to, int [M]."""
        return self.targets.lengths

    def __len__(self) -> int:
        return len(self.pictures)

    def gather(self, indices: np.ndarray, *, among: np.ndarray | None = None) -> Batch:
        """Returns "image" uint8 [n, H, W, C], and the arrays that `Pairs` makes of the captions."""
        batch = self.targets.gather(indices, among=among)
        texts = {name: batch[name] for name in ("inputs", "targets", "target_length")}
        return {**self.images.gather(self.pictures[indices]), **texts}

    def subset(self, indices: np.ndarray) -> "PictureTexts":
        """Returns the captions at `indices` [n] with their pictures."""
        return PictureTexts(self.images, self.pictures[indices], self.targets.subset(indices))


class _Listed(NamedTuple):
    """The pictures of a part, not decoded yet, and the captions of each."""

    images: Sequence[StoredImage]
    captions: Sequence[tuple[str, ...]]


def load_captions(
    dataset: str = "glyph_names",
    *,
    data_dir: PathLike | None = None,
    data_path: PathLike | None = None,
    image_size: int | None = None,
    size_of_mixed: int | None = None,
    valid_share: float = 0.0,
    in_memory_bytes: int = 2 << 30,
) -> CaptionData:
    """Loads pictures and their captions, and decodes them into memory if they fit there.

    Args:
        dataset: "glyph_names", which is always available, or a prepared TFDS data set whose
            examples have an `image` and a text.
        data_dir: the folder of prepared data sets; None means TFDS' own,
            ~/tensorflow_datasets.
        data_path: the user's files, instead of `dataset`.
        image_size: the side in pixels of the square that every picture is fitted into
            (`pictures.fit_square`); None keeps the pictures, which must then be of one size.
        size_of_mixed: the side where `image_size` is None, for all data except a prepared data set
            that declares one size for its pictures.
        valid_share: the share of the training pictures that is held out for validation where the
            data has no such part; 0 holds nothing out. The choice depends on names and captions
            alone.
        in_memory_bytes: the most memory that decoded pictures may take. More are read and decoded
            batch by batch.

    Raises:
        InputError: for data that is missing, not prepared, unreadable or of differing sizes, for a
            caption that is empty or whose picture is missing (the message names the line of a table
            and the place in a JSON file), and for a share outside [0, 1).
    """
    check_image_size(image_size)
    if not 0 <= valid_share < 1:
        raise InputError(f"validation share {valid_share} is not possible; choose it in [0, 1)")
    shape: tuple[int | None, int | None, int | None] = (None, None, None)
    notes: tuple[str, ...] = ()
    bits = 16
    if data_path is None:
        name, shape, parts, notes = _read_prepared(dataset, data_dir)
    else:
        path = files.existing(data_path)
        name = str(path)
        parts, notes = _read_files(path)
        bits = pictures.bits_of(parts["train"].images)
    if None in shape[:2]:
        image_size = image_size or size_of_mixed
    if "test" not in parts and "valid" in parts:
        parts["test"] = parts.pop("valid")
    if "test" not in parts:
        parts["train"], parts["test"] = _hold_out(parts["train"], 0.2, name)
    if "valid" not in parts and valid_share:
        parts["train"], parts["valid"] = _hold_out(parts["train"], valid_share, name)
    image_shape, splits, seen = decoded_parts(
        name,
        [part.images for part in parts.values()],
        shape,
        num_labels=1,
        image_size=image_size,
        bits=bits,
        in_memory_bytes=in_memory_bytes,
    )
    captioned: Mapping[str, Captioned] = {
        part: Captioned(_Pictures(split), tuple(listed.captions))
        for (part, listed), split in zip(parts.items(), splits, strict=True)
    }
    return CaptionData(
        name,
        captioned["train"],
        captioned.get("valid"),
        captioned["test"],
        image_shape,
        bits,
        notes + seen,
    )


@dataclasses.dataclass(frozen=True)
class _Pictures:
    """A split of images without labels, since captioned pictures have none."""

    split: Split

    def __len__(self) -> int:
        return len(self.split)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": self.split.gather(indices)["image"]}

    def subset(self, indices: np.ndarray) -> "_Pictures":
        return _Pictures(self.split.subset(indices))


def _hold_out(part: _Listed, share: float, title: str) -> tuple[_Listed, _Listed]:
    """Holds out a fixed share of the pictures, at least one.

    Pictures that share all their captions stay together.
    """
    # An order that looks random and does not change when pictures are added.
    keys = ["\n".join(of) for of in part.captions]
    distinct = sorted({*keys}, key=lambda text: zlib.crc32(text.encode()))
    count = max(1, round(len(distinct) * share))
    if count >= len(distinct):
        raise InputError(
            f"{title} has too few pictures of different captions ({len(distinct)}) to hold "
            f"{share:g} of them out; give more, or a folder with files named train and test"
        )
    chosen = {*distinct[:count]}
    rest, held_out = (
        _Listed([part.images[i] for i in rows], [part.captions[i] for i in rows])
        for rows in (
            [i for i, key in enumerate(keys) if key not in chosen],
            [i for i, key in enumerate(keys) if key in chosen],
        )
    )
    return rest, held_out


def _read_prepared(
    dataset: str, data_dir: PathLike | None
) -> tuple[str, tuple[int | None, int | None, int], dict[str, _Listed], tuple[str, ...]]:
    """Returns name, shape of the images and parts of a TFDS data set, and notes."""
    from dlcore.data import catalogue, tfds

    builder = catalogue.prepared_builder(dataset, data_dir)
    shape = tfds.captioned_features(builder)
    (text,) = tfds.features_of(builder, "text")
    there = tfds.filled_splits(builder)
    names = {"train": "train", "validation": "valid", "test": "test"}
    left_out = (builder.info.metadata or {}).get("left_out", {})
    counts = ", ".join(f"{count:,} {kind}" for kind, count in left_out.items())
    if "train" not in there:
        raise InputError(
            f"data set {builder.info.full_name!r} has the splits {', '.join(there) or 'none'}; it "
            "needs train"
        )
    return (
        builder.info.full_name,
        shape,
        {
            part: _Listed(
                tfds.StoredImages(builder, split, labelled=False),
                [(caption,) for (caption,) in tfds.read_examples(builder, split, (text,))],
            )
            for split, part in names.items()
            if split in there
        },
        (f"{builder.info.full_name}: left out: {counts}",) if counts else (),
    )


def _read_files(path: pathlib.Path) -> tuple[dict[str, _Listed], tuple[str, ...]]:
    """Returns the parts that the user's files have, and notes."""
    if path.is_file():
        part, notes = _read_file(path)
        return {"train": part}, notes
    jsons = [*path.glob("annotations/*.json"), *path.glob("*.json")]
    candidates = sorted(file for file in jsons if file.stem.lower().startswith(_PREFIX))
    if not candidates:
        visible = [file for file in path.iterdir() if file.name[0] != "." and file.is_file()]
        candidates = sorted(file for file in visible if file.suffix.lower() in _TABLES)
    found: dict[str, pathlib.Path] = {}
    unread = []
    for file in candidates:
        kinds = [kind_of_part(part) for part in files.parts(file)]
        kind = next((kind for kind in kinds if kind in _KINDS), None)
        if len(candidates) == 1:
            found["train"] = file
        elif kind is None:
            unread.append(file.name)
        elif _KINDS[kind] in found:
            raise InputError(
                f"{path} has {found[_KINDS[kind]].name} and {file.name}; keep one of them"
            )
        else:
            found[_KINDS[kind]] = file
    if "train" not in found:
        there = ", ".join(file.name for file in candidates) or "no file of captions"
        raise InputError(f"{path} has {there}; {_LAYOUT}")
    read = {kind: _read_file(file) for kind, file in found.items()}
    notes = tuple(line for _, lines in read.values() for line in lines)
    if unread:
        notes += (note(path, "not read, neither of train nor held out", unread),)
    return {kind: part for kind, (part, _) in read.items()}, notes


def _read_file(file: pathlib.Path) -> tuple[_Listed, tuple[str, ...]]:
    """Returns the pictures and captions of one file, and notes."""
    return (_read_coco if file.suffix.lower() == ".json" else _read_table)(file)


def _read_table(path: pathlib.Path) -> tuple[_Listed, tuple[str, ...]]:
    captions: dict[pathlib.Path, list[str]] = {}
    notes = []
    for place, (cells, line) in enumerate(files.read_rows(path)):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != 2:
            raise InputError(
                f"{line} has {files.columns(len(cells))}; it needs a picture, a tab and a caption"
            )
        name, caption = (cell.strip() for cell in cells)
        if place == 0 and name.casefold() in _HEADER:
            notes.append(f"{path}: the first line names the columns")
            continue
        # "photo.jpg#3" is the fourth caption of photo.jpg.
        likely = [
            path.parent / folder / form
            for form in (name, _NUMBERED.sub("", name))
            for folder in ("", "images", "Images")
        ]
        picture = next((file for file in likely if name and file.is_file()), None)
        if picture is None:
            raise InputError(
                f"{line} names the picture {name!r}, which is neither in {path.parent} nor in "
                "images/ within it; add it, or remove the line"
            )
        if not caption:
            raise InputError(f"{line} has no caption for {name}; add one, or remove the line")
        captions.setdefault(picture, []).append(caption)
    if not captions:
        raise InputError(f"{path} has no captions; each line is PICTURE, a tab and CAPTION")
    return _listed(captions), tuple(notes)


def _read_coco(path: pathlib.Path) -> tuple[_Listed, tuple[str, ...]]:
    file = shown(path)
    table = read_lists(path, ("images", "annotations"))
    listed = listed_pictures(file, table)
    captions: dict[object, list[str]] = {key: [] for key in listed}
    left_out: dict[str, list[str]] = {}
    for at, annotation in enumerate(table["annotations"]):
        where = f"annotation {at} of {file}"
        require(annotation, where, "image_id", "caption")
        where = f"annotation {at} (id {annotation.get('id')}) of {file}"
        key, caption = annotation["image_id"], annotation["caption"]
        if not isinstance(key, int | str):
            raise InputError(f"{where} has the image_id {key!r}, which is not a number; correct it")
        if not isinstance(caption, str) or not caption.strip():
            raise InputError(f"{where} has no text as its caption; add one, or remove it")
        if key not in captions:
            left_out.setdefault("left out, captions of pictures that are not listed", []).append(
                str(key)
            )
        else:
            captions[key].append(" ".join(caption.split()))
    folders = picture_folders(path, path.stem.rpartition("_")[2])
    folder = picture_folder(folders, listed)
    there: dict[pathlib.Path, list[str]] = {}
    for key, listing in listed.items():
        picture = folder / listing["file_name"]
        if not picture.is_file():
            left_out.setdefault("left out, no file", []).append(shown(picture))
        elif not captions[key]:
            left_out.setdefault("left out, without a caption", []).append(shown(picture))
        else:
            there.setdefault(picture, []).extend(captions[key])
    if not there:
        raise InputError(
            f"{file} has no picture with a caption among the files in {shown(folder)}; put the "
            "pictures into a folder of the part's name, or into images/"
        )
    notes = (note(path, kind, names) for kind, names in left_out.items())
    return _listed(there), tuple(notes)


def _listed(captions: Mapping[pathlib.Path, Sequence[str]]) -> _Listed:
    images = [StoredImage(file, 0, shown(file)) for file in captions]
    return _Listed(images, [tuple(of) for of in captions.values()])
