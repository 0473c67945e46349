"""Reads a folder of images by class, as users keep their own data.

The folder holds either `train/` and one of `test/`, `validation/`, `valid/` and `val/`, each with
one folder per class, or the folders of the classes alone. In the second case a fixed fifth of every
class is held out for the test. Folders within the folder of a class belong to the class.
"""

import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dlcore.data.pictures import StoredImage
from dlcore.errors import InputError

TRAIN = ("train", "training")
# The first of them that is there is what is tested on.
HELD_OUT = ("test", "testing", "validation", "valid", "val")
_LAYOUT = "expected train/ and test/ (or validation/, valid/, val/) or one folder per class"
# What operating systems leave in folders, beside names that begin with a dot.
_SYSTEM = ("__MACOSX", "Thumbs.db", "desktop.ini")


class ImageFolder(NamedTuple):
    """The images of a folder, not decoded yet, in the order of their file names.

    Attributes:
        class_names: the name of each label.
        train: the training images.
        test: the held-out images.
        notes: lines for the log about files that were left out or are ambiguous.
    """

    class_names: tuple[str, ...]
    train: list[StoredImage]
    test: list[StoredImage]
    notes: tuple[str, ...]


def read_folder(path: pathlib.Path, *, allow_empty: bool = False) -> ImageFolder:
    """Lists a folder of images by class without opening an image.

    Args:
        path: the folder.
        allow_empty: whether a class may have no images.

    Raises:
        InputError: when the folder is missing, cannot be read or has another layout, when a class
            has no image, when a class that must be divided for the test has only one image, or
            when a class is in test/ alone.
    """
    try:
        return _Reader(path, allow_empty).read()
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error


def shown(path: pathlib.Path | str) -> str:
    """Returns a file's name as text; bytes that are not UTF-8 become escapes such as \\\\xe9."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def note(path: pathlib.Path, kind: str, names: Sequence[str]) -> str:
    """Returns a line for the log about things of one kind, with their number and some names."""
    some = ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])
    return f"{path}: {kind}: {len(names):,} ({some})"


def hold_out(
    images: Sequence[StoredImage], class_names: Sequence[str]
) -> tuple[list[StoredImage], list[StoredImage]]:
    """Splits images into those to train on and a fixed fifth of every class, at least one image.

    Raises:
        InputError: when a class has only one image.
    """
    from sklearn import model_selection

    labels = [image.label for image in images]
    counts = np.bincount(np.array(labels, int), minlength=len(class_names))
    _refuse_single(counts, class_names)
    if not images:
        return [], []
    train, test = model_selection.train_test_split(
        np.arange(len(images)),
        test_size=max(-(-len(images) // 5), np.count_nonzero(counts)),
        random_state=0,
        stratify=labels,
    )
    return [images[i] for i in np.sort(train)], [images[i] for i in np.sort(test)]


def hold_out_labels(
    images: Sequence[StoredImage], class_names: Sequence[str]
) -> tuple[list[StoredImage], list[StoredImage]]:
    """Splits images of several labels so that about a fixed fifth of every class is held out.

    This is iterative stratification (Sechidis et al. 2011): the images of the rarest remaining
    class go first, each to the part that lacks the most images of the class, or on a tie to the
    part that lacks the most images. Images without a label come last.

    Raises:
        InputError: when a class has only one image.
    """
    labels = np.array([image.label for image in images], int)
    counts = labels.sum(0)
    _refuse_single(counts, class_names)
    held_out = np.maximum(-(-counts // 5), 1)
    lacks = np.stack([counts - held_out, held_out])  # of each class, to train on and to test
    room = np.array([len(images) - -(-len(images) // 5), -(-len(images) // 5)])
    part = np.full(len(images), -1)
    order = np.random.default_rng(0).permutation(len(images))
    while (left := part < 0).any():
        remaining = labels[left].sum(0)
        if remaining.any():
            rarest = int(np.where(remaining > 0, remaining, len(images) + 1).argmin())
            chosen = order[(left & (labels[:, rarest] > 0))[order]]
        else:
            rarest, chosen = None, order[left[order]]
        for i in chosen:
            wants = room if rarest is None else lacks[:, rarest]
            part[i] = int(wants.argmax() if wants[0] != wants[1] else room.argmax())
            lacks[part[i]] -= labels[i]
            room[part[i]] -= 1
    train, test = (
        [image for image, own in zip(images, part, strict=True) if own == wanted]
        for wanted in (0, 1)
    )
    return train, test


def _refuse_single(counts: np.ndarray, class_names: Sequence[str]) -> None:
    if 1 in counts:
        raise InputError(
            f"class {class_names[int(np.argmax(counts == 1))]} has 1 image; a class needs 2 or "
            "more to hold some out for the test, or name train and test parts"
        )


class FolderReader:
    """A reader that lists the content of a folder and counts what it leaves out.

    Args:
        path: the folder.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._noted: dict[str, list[pathlib.Path]] = {}

    def note(self, kind: str, *paths: pathlib.Path) -> None:
        """Remembers paths that are left out, or read differently, for the reason `kind`."""
        if paths:
            self._noted.setdefault(kind, []).extend(paths)

    def notes(self) -> tuple[str, ...]:
        """Returns a line for the log about each kind of note."""
        return tuple(
            note(self.path, kind, [shown(path.relative_to(self.path)) for path in paths])
            for kind, paths in self._noted.items()
        )

    def visible(self, folder: pathlib.Path) -> Iterator[pathlib.Path]:
        """Yields the files and folders in a folder by name, without hidden and missing ones."""
        for item in sorted(folder.iterdir()):
            if _is_hidden(item):
                self.note("left out, hidden", item)
            elif item.is_dir() or item.is_file():
                yield item
            else:
                self.note("left out, links to nothing and what else is no file", item)

    def files(
        self, folder: pathlib.Path, around: tuple[pathlib.Path, ...] = ()
    ) -> Iterator[pathlib.Path]:
        """Yields the visible files in a folder and in those within it."""
        around = (*around, folder.resolve())
        for item in self.visible(folder):
            if not item.is_dir():
                yield item
            elif item.resolve() not in around:
                yield from self.files(item, around)
            else:
                self.note("left out, links to a folder around them", item)


class _Reader(FolderReader):
    """A reader of a folder of images by class."""

    def __init__(self, path: pathlib.Path, allow_empty: bool):
        super().__init__(path)
        self._allow_empty = allow_empty

    def read(self) -> ImageFolder:
        folders = self._folders(self.path)
        named = {
            folder.name.casefold(): folder
            for folder in folders.values()
            if folder.name.casefold() in (*TRAIN, *HELD_OUT)
        }
        parts = {name: folder for name, folder in named.items() if has_folders(folder)}
        if not parts:
            self.note("taken as classes, since no folders are within", *named.values())
            return self._split(folders)
        train = next((parts[name] for name in TRAIN if name in parts), None)
        test = next((parts[name] for name in HELD_OUT if name in parts), None)
        if train is None or test is None:
            there = ", ".join(f"{folder.name}/" for folder in parts.values())
            missing = "train/" if train is None else "test/, validation/, valid/ or val/"
            raise InputError(f"{self.path} has {there} but no {missing}; {_LAYOUT}")
        for folder in folders.values():
            if folder not in (train, test):
                kind = f"left out, beside {train.name}/ and {test.name}/"
                self.note(kind, *self.files(folder))
        return self._parts(self._folders(train), self._folders(test))

    def _parts(
        self, train: Mapping[str, pathlib.Path], test: Mapping[str, pathlib.Path]
    ) -> ImageFolder:
        if unknown := sorted(set(test) - set(train)):
            raise InputError(
                f"classes {', '.join(map(shown, unknown))} are in {test[unknown[0]].parent} but "
                f"not in {next(iter(train.values())).parent}; a class must have images to train on"
            )
        numbers = {name: number for number, name in enumerate(train)}
        splits = [
            [image for name in split for image in self._images(split[name], numbers[name])]
            for split in (train, test)
        ]
        return self._result(train, *splits)

    def _split(self, classes: Mapping[str, pathlib.Path]) -> ImageFolder:
        """Holds out a fixed fifth of every class, at least one image."""
        images = [
            image
            for label, folder in enumerate(classes.values())
            for image in self._images(folder, label)
        ]
        return self._result(classes, *hold_out(images, [*map(shown, classes)]))

    def _result(
        self, classes: Iterable[str], train: list[StoredImage], test: list[StoredImage]
    ) -> ImageFolder:
        if not train or not test:
            raise InputError(f"{self.path} has no images to train on, or none to test on")
        return ImageFolder(tuple(map(shown, classes)), train, test, self.notes())

    def _folders(self, path: pathlib.Path) -> dict[str, pathlib.Path]:
        """Returns the visible folders of `path`, at least one, by their sorted names."""
        if not path.is_dir():
            raise InputError(f"{path} is not a folder; {_LAYOUT}")
        folders = {}
        for item in self.visible(path):
            if item.is_dir():
                folders[item.name] = item
            else:
                self.note("left out, beside the folders of classes", item)
        if not folders:
            raise InputError(f"{path} has no folders of classes; {_LAYOUT}")
        return folders

    def _images(self, folder: pathlib.Path, label: int) -> list[StoredImage]:
        """Returns the visible files of a class, sorted."""
        files = [*self.files(folder)]
        kind = "in folders within those of classes, taken for images of the class"
        self.note(kind, *(file for file in files if file.parent != folder))
        if not files and not self._allow_empty:
            raise InputError(
                f"{shown(folder)} has no images; add some, remove the folder or give "
                "--allow_empty_classes"
            )
        if not files:
            self.note("classes without images", folder)
        return [StoredImage(file, label, shown(file)) for file in files]


def _is_hidden(path: pathlib.Path) -> bool:
    return path.name.startswith(".") or path.name in _SYSTEM


def has_folders(path: pathlib.Path) -> bool:
    """Returns whether a folder has visible folders within."""
    return any(item.is_dir() and not _is_hidden(item) for item in path.iterdir())
