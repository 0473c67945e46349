"""Reads a folder of images by class, as users keep their own data.

The folder holds either `train/` and one of `test/`, `validation/` and `val/`, each with one folder
per class, or the folders of the classes alone. In the second case a fixed fifth of every class is
held out for the test.
"""

import pathlib
from typing import NamedTuple

import numpy as np

from dlcore.data.pictures import StoredImage
from dlcore.errors import InputError

_TEST_NAMES = ("test", "validation", "val")
_LAYOUT = "expected train/ and test/ (or validation/, val/) or one folder per class"


class ImageFolder(NamedTuple):
    """The images of a folder, not decoded yet, in the order of their file names."""

    class_names: tuple[str, ...]
    train: list[StoredImage]
    test: list[StoredImage]


def read_folder(path: pathlib.Path) -> ImageFolder:
    """Lists a folder of images by class without opening an image.

    Raises:
        InputError: when the folder is missing or has another layout, when a class has no image,
            when a class that the test split must be cut from has only one image, or when a class
            is in test/ alone.
    """
    folders = _folders(path)
    if "train" not in folders:
        return _split(folders)
    held_out = [name for name in _TEST_NAMES if name in folders]
    if not held_out:
        raise InputError(f"{path} has train/ but no test/, validation/ or val/; {_LAYOUT}")
    train, test = _folders(folders["train"]), _folders(folders[held_out[0]])
    if unknown := sorted(set(test) - set(train)):
        raise InputError(
            f"classes {', '.join(unknown)} are in {folders[held_out[0]]} but not in "
            f"{folders['train']}; a class must have images to train on"
        )
    numbers = {name: number for number, name in enumerate(train)}
    return ImageFolder(
        tuple(train),
        *(
            [image for name in split for image in _images(split[name], numbers[name])]
            for split in (train, test)
        ),
    )


def _folders(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the visible folders of `path`, at least one, by their sorted names."""
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; {_LAYOUT}")
    folders = sorted(item for item in path.iterdir() if item.is_dir() and item.name[0] != ".")
    if not folders:
        raise InputError(f"{path} has no folders of classes; {_LAYOUT}")
    return {folder.name: folder for folder in folders}


def _images(folder: pathlib.Path, label: int) -> list[StoredImage]:
    """Returns the visible files of a class, at least one, sorted."""
    files = sorted(item for item in folder.iterdir() if item.is_file() and item.name[0] != ".")
    if not files:
        raise InputError(f"{folder} has no images; add some or remove the folder")
    return [StoredImage(file, label, str(file)) for file in files]


def _split(classes: dict[str, pathlib.Path]) -> ImageFolder:
    """Holds out a fixed fifth of every class, at least one image."""
    from sklearn import model_selection

    images = [
        image for label, folder in enumerate(classes.values()) for image in _images(folder, label)
    ]
    labels = np.array([image.label for image in images])
    counts = np.bincount(labels)
    if counts.min() < 2:
        alone = list(classes.values())[int(counts.argmin())]
        raise InputError(
            f"{alone} has 1 image; a class needs 2 or more to hold some out for the test, or give "
            "train/ and test/"
        )
    train, test = model_selection.train_test_split(
        np.arange(len(images)),
        test_size=max(-(-len(images) // 5), len(classes)),
        random_state=0,
        stratify=labels,
    )
    return ImageFolder(
        tuple(classes),
        *([images[index] for index in np.sort(indices)] for indices in (train, test)),
    )
