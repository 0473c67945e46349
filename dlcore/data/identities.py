"""Loads pictures by identity, such as persons or characters, from any source as one kind of object.

A model of identities must tell apart identities that it was not trained on. So the parts of such a
data set share no identity.

A folder holds either `train/` and one of `test/`, `validation/`, `valid/` and `val/`, or the
identities alone, of which a fixed fifth is then held out. An identity is a folder that has files
and no folders in it; the path to it is its group: `Greek/character01/0394_01.png` is a picture of
the identity `Greek/character01` of the group `Greek`.

Shapes: H W C the height, width and channels of an image.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple, TypeVar

import numpy as np

from dlcore.data import pictures
from dlcore.data.image_folder import HELD_OUT, TRAIN, FolderReader, has_folders, shown
from dlcore.data.images import check_image_size, decoded_parts
from dlcore.data.pictures import StoredImage
from dlcore.data.sources import Split
from dlcore.errors import InputError, choose

PathLike = str | os.PathLike[str]
T = TypeVar("T")

_UNSEEN = "unseen_"  # what the name of a second held-out part starts with
_LAYOUT = "expected a folder for each identity, perhaps in folders of groups or in train/ and test/"
_SHARE = 0.2  # of the identities, held out for the test where the data has no part for it


@dataclasses.dataclass(frozen=True)
class IdentityData:
    """A data set of pictures by identity.

    Attributes:
        name: the name of the data set in logs and errors.
        train: the training part; an example is {"image": uint8 [H, W, C], "label": int32 []}; the
            label is the number of its identity in the part.
        test: identities that the training part does not have.
        image_shape: (H, W, C) of every image.
        identity_names: the names of the identities of each part, in the order of their labels; the
            parts are "train", "test", and "validation" and "second" where there are such.
        groups: the group of each identity, such as the script of a character; "" for none.
        validation: identities held out of the training part to tune with.
        second: a second test, on identities of another kind than those of the training part.
        second_name: the name of the second test.
        bits: the bits of values in image files with more than 8, see `pictures.bits_of`.
        notes: lines for the log about data that was left out or changed when it was read.
    """

    name: str
    train: Split
    test: Split
    image_shape: tuple[int, int, int]
    identity_names: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, tuple[str, ...]]
    validation: Split | None = None
    second: Split | None = None
    second_name: str | None = None
    bits: int = 16
    notes: tuple[str, ...] = ()


class _Identity(NamedTuple):
    """An identity and the numbers of its pictures in the source of a part."""

    name: str
    group: str
    rows: np.ndarray


class _Part(NamedTuple):
    """Identities, and the pictures that the identities' numbers index."""

    identities: list[_Identity]
    images: Sequence[StoredImage]

    def having(self, chosen: Sequence[bool] | np.ndarray) -> "_Part":
        kept = [one for one, keep in zip(self.identities, chosen, strict=True) if keep]
        return self._replace(identities=kept)


@dataclasses.dataclass(frozen=True)
class _Labelled(Sequence[StoredImage]):
    """The pictures of a part, identity by identity, labelled with the identities' numbers."""

    images: Sequence[StoredImage]
    rows: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, part: _Part) -> "_Labelled":
        counts = [len(identity.rows) for identity in part.identities]
        rows = np.concatenate([identity.rows for identity in part.identities])
        return cls(part.images, rows, np.repeat(np.arange(len(counts)), counts))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> StoredImage:  # type: ignore[override]
        return self.images[int(self.rows[index])]._replace(label=int(self.labels[index]))


def load_identities(
    dataset: str = "glyphs",
    *,
    data_dir: PathLike | None = None,
    data_path: PathLike | None = None,
    image_size: int | None = None,
    test_groups: Sequence[str] = (),
    validation: float = 0.0,
    validation_groups: Sequence[str] = (),
    seed: int = 0,
    in_memory_bytes: int = 2 << 30,
) -> IdentityData:
    """Loads pictures by identity and decodes them into memory if they fit there.

    An identity with one picture has no pair. It is left out of training; in the other parts it
    stays, because other identities can be mistaken for it.

    Args:
        dataset: "glyphs", which is always available, or a prepared TFDS data set such as omniglot
            or lfw, with a `label` and perhaps an `alphabet`, the group. Its test part is "test", or
            "validation", or else a fixed fifth of the identities.
        data_dir: the folder of prepared data sets; None means TFDS' own,
            ~/tensorflow_datasets.
        data_path: a folder of pictures by identity (see the module), instead of `dataset`.
        image_size: the side in pixels of the square that every image is fitted into
            (`pictures.fit_square`); None keeps the images, which must then be of one size.
        test_groups: the groups to test on, where the data has no test part.
        validation: the share of the training identities to hold out for tuning.
        validation_groups: the groups to hold out of the training part instead.
        seed: the seed for choosing the share for tuning.
        in_memory_bytes: the most memory that decoded images may take. A larger data set is read and
            decoded batch by batch.

    Raises:
        InputError: for data that is missing, not prepared, unreadable or of differing sizes, for
            an identity that is in two parts, for a group that is not there, and for a part of
            fewer than two identities, or without two pictures of one.
    """
    check_image_size(image_size)
    if data_path is not None:
        if data_path == "":
            raise InputError("the data path is empty; give a folder of pictures by identity")
        path = pathlib.Path(data_path).expanduser()
        name = str(path)
        parts, notes = _reading(_Reader(path).read)
        shape: tuple[int | None, int | None, int | None] = (None, None, None)
        bits = pictures.bits_of(parts["train"].images)
    else:
        name, shape, parts = _read_prepared(dataset, data_dir)
        notes, bits = (), 16
    _refuse_shared(name, parts)
    if "test" not in parts:
        parts["train"], parts["test"] = _held_out(name, parts["train"], test_groups, _SHARE, seed=0)
    elif test_groups:
        raise InputError(
            f"{name} has its own part to test on, so no groups can be chosen for that; leave "
            "out test_groups"
        )
    if validation or validation_groups:
        parts["train"], parts["validation"] = _held_out(
            name, parts["train"], validation_groups, validation, seed
        )
    second_name = next((part for part in parts if part.startswith(_UNSEEN)), None)
    if second_name is not None:
        parts["second"] = parts.pop(second_name)
    for part, found in parts.items():
        several = [len(identity.rows) > 1 for identity in found.identities]
        single = several.count(False)
        if single:
            what = "left out" if part == "train" else "they are in no pair of their own"
            notes += (f"{name}: identities of one picture in {part}: {single:,}, {what}",)
        if part == "train":
            parts[part] = found.having(several)
        if len(parts[part].identities) < 2 or not any(several):
            raise InputError(
                f"{name} has {len(found.identities)} identities in {part}, {sum(several)} of them "
                "with two or more pictures; 2 are needed, one of them with two pictures"
            )
    labelled = {part: _Labelled.of(found) for part, found in parts.items()}
    image_shape, decoded, seen = decoded_parts(
        name,
        [*labelled.values()],
        shape,
        num_labels=max(len(found.identities) for found in parts.values()),
        image_size=image_size,
        bits=bits,
        in_memory_bytes=in_memory_bytes,
    )
    splits = dict(zip(labelled, decoded, strict=True))
    return IdentityData(
        name,
        splits["train"],
        splits["test"],
        image_shape,
        {part: tuple(one.name for one in found.identities) for part, found in parts.items()},
        {part: tuple(one.group for one in found.identities) for part, found in parts.items()},
        splits.get("validation"),
        splits.get("second"),
        second_name,
        bits,
        notes + seen,
    )


def list_pictures(path: pathlib.Path) -> tuple[dict[str, list[pathlib.Path]], tuple[str, ...]]:
    """Lists the pictures of each identity in a folder, and returns notes on those left out.

    Raises:
        InputError: when the folder cannot be read, or has no folders with pictures.
    """

    def listed() -> tuple[_Part, tuple[str, ...]]:
        reader = _Reader(path)
        return reader.part(path), reader.notes()

    part, notes = _reading(listed)
    files = [image.file for image in part.images]
    return {
        one.name: [file for row in one.rows if isinstance(file := files[row], pathlib.Path)]
        for one in part.identities
    }, notes


def _held_out(
    name: str, part: _Part, groups: Sequence[str], share: float, seed: int
) -> tuple[_Part, _Part]:
    """Splits a part into a remaining and a held-out part, by whole groups or by a share."""
    own = [identity.group for identity in part.identities]
    count = len(own)
    if groups:
        for group in groups:
            if group not in own:
                raise choose(f"group of {name}", group, {*own} - {""})
        held_out = np.isin(own, list(groups))
    else:
        order = np.random.default_rng(seed).permutation(count)
        held_out = np.zeros(count, bool)
        held_out[order[: max(2, round(share * count))]] = True
    if count - np.count_nonzero(held_out) < 2:
        raise InputError(
            f"{name} has {count} identities to train on, and {np.count_nonzero(held_out)} of them "
            "are to be held out; 2 or more must be left: give more identities, or hold out fewer"
        )
    return part.having(~held_out), part.having(held_out)


def _refuse_shared(name: str, parts: Mapping[str, _Part]) -> None:
    names = {part: {one.name for one in found.identities} for part, found in parts.items()}
    for a, b in combinations(names, 2):
        shared = sorted(names[a] & names[b])
        if shared:
            some = ", ".join([*shared[:3], *(["..."] if len(shared) > 3 else [])])
            raise InputError(
                f"{name} has {len(shared)} identities in both {a} and {b} ({some}); the identities "
                "of a test must differ from those of training: remove them from one part"
            )


def _read_prepared(
    dataset: str, data_dir: PathLike | None
) -> tuple[str, tuple[int | None, int | None, int], dict[str, _Part]]:
    """Returns name, shape and parts of a TFDS data set."""
    # A folder of pictures needs no TFDS, whose import takes 0.3 s.
    from dlcore.data import catalogue, tfds

    builder = catalogue.prepared_builder(dataset, data_dir)
    name = builder.info.full_name
    shape = tfds.identity_features(builder)
    there = tfds.filled_splits(builder)
    if "train" not in there:
        raise InputError(
            f"data set {name!r} has the splits {', '.join(there) or 'none'}; it needs train"
        )
    sources = {"train": "train"}
    test = next((split for split in ("test", "validation") if split in there), None)
    if test is not None:
        sources["test"] = test
    sources |= {split: split for split in there if split.startswith(_UNSEEN)}
    parts = {}
    for part, split in sources.items():
        rows: dict[tuple[str, str], list[int]] = {}
        for row, identity in enumerate(tfds.read_identities(builder, split)):
            rows.setdefault(identity, []).append(row)
        parts[part] = _Part(
            [_Identity(own, group, np.array(rows[group, own])) for group, own in sorted(rows)],
            tfds.StoredImages(builder, split, labelled=False),
        )
    return name, shape, parts


def _reading(read: Callable[[], T]) -> T:
    """Turns an error of the operating system into one clear line."""
    try:
        return read()
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error


def _require_folder(path: pathlib.Path) -> None:
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; {_LAYOUT}")


class _Reader(FolderReader):
    """A reader of one folder of pictures by identity."""

    def read(self) -> tuple[dict[str, _Part], tuple[str, ...]]:
        _require_folder(self.path)
        folders = [item for item in self.visible(self.path) if item.is_dir()]
        named = {
            folder.name.casefold(): folder
            for folder in folders
            if folder.name.casefold() in (*TRAIN, *HELD_OUT) and has_folders(folder)
        }
        train = next((named[name] for name in TRAIN if name in named), None)
        test = next((named[name] for name in HELD_OUT if name in named), None)
        if train is None and test is None:
            return {"train": self.part(self.path)}, self.notes()
        if train is None or test is None:
            missing = "train/" if train is None else "test/, validation/, valid/ or val/"
            raise InputError(
                f"{self.path} has {next(iter(named.values())).name}/ but no {missing}; {_LAYOUT}"
            )
        beside = [folder for folder in folders if folder not in (train, test)]
        self.note(f"left out, beside {train.name}/ and {test.name}/", *beside)
        parts = {"train": self.part(train), "test": self.part(test)}
        return parts, self.notes()

    def part(self, root: pathlib.Path) -> _Part:
        """Lists the identities in a folder, without opening a picture."""
        _require_folder(root)
        images: list[StoredImage] = []
        identities: list[_Identity] = []
        self._add(root, root, images, identities, ())
        if not identities:
            raise InputError(f"{root} has no folders with pictures; {_LAYOUT}")
        return _Part(identities, images)

    def _add(
        self,
        folder: pathlib.Path,
        root: pathlib.Path,
        images: list[StoredImage],
        identities: list[_Identity],
        around: tuple[pathlib.Path, ...],
    ) -> None:
        """Adds the identities in a folder to those of its part."""
        around = (*around, folder.resolve())
        items = [*self.visible(folder)]
        files = [item for item in items if not item.is_dir()]
        if folder == root or len(files) < len(items):
            self.note("left out, beside folders", *files)
            for item in items:
                if item.is_dir() and item.resolve() in around:
                    self.note("left out, links to a folder around them", item)
                elif item.is_dir():
                    self._add(item, root, images, identities, around)
        elif files:
            rows = np.arange(len(images), len(images) + len(files))
            images += [StoredImage(file, 0, shown(file)) for file in files]
            own = folder.relative_to(root)
            group = "" if own.parent == pathlib.Path(".") else shown(own.parent)
            identities.append(_Identity(shown(own), group, rows))
        else:
            self.note("left out, without pictures", folder)
