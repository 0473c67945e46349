"""Reads images by class from a file of NumPy arrays, in the layout of Keras's mnist.npz.

The file holds x_train and x_test, images [N, H, W] or [N, H, W, C], and y_train and y_test, their
classes as whole numbers [N].

Shapes: N images of a part, H W C the height, width and channels of an image.
"""

import pathlib
import zipfile
import zlib

import numpy as np

from dlcore.data.image_folder import ImageFolder
from dlcore.data.pictures import MODES, StoredImage
from dlcore.errors import InputError
from dlcore.files import open_file

_NAMES = ("x_train", "y_train", "x_test", "y_test")
SUFFIX = ".npz"


def read_arrays(path: pathlib.Path) -> ImageFolder:
    """Reads the images of a file, whose class names are the numbers that occur in y_train.

    Pixels are whole numbers of 0..255, which are taken as they are, or truth values or numbers of
    0..1, which are multiplied by 255 and rounded, with a note.

    Raises:
        InputError: when the file cannot be read or lacks one of the arrays, for arrays of other
            shapes, types or values, and for a class that has no image to train on.
    """
    arrays = _load(path)
    notes: list[str] = []
    parts = {part: _images(path, f"x_{part}", arrays, notes) for part in ("train", "test")}
    if parts["train"].shape[1:] != parts["test"].shape[1:]:
        raise InputError(
            f"the images of {path} are of {parts['train'].shape[1:]} in x_train and of "
            f"{parts['test'].shape[1:]} in x_test; they must have one size"
        )
    classes = {part: _classes(path, f"y_{part}", arrays, len(parts[part])) for part in parts}
    known = np.unique(classes["train"])
    strange = np.setdiff1d(classes["test"], known)
    if len(strange):
        raise InputError(
            f"y_test of {path} has the class {strange[0]}, of which y_train has no image; a class "
            "must have some to train on"
        )

    def stored(part: str) -> list[StoredImage]:
        labels = np.searchsorted(known, classes[part]).tolist()
        return [
            StoredImage(image, label, f"{number} of x_{part} in {path}")
            for number, (image, label) in enumerate(zip(parts[part], labels, strict=True))
        ]

    names = tuple(str(number) for number in known.tolist())
    return ImageFolder(names, stored("train"), stored("test"), tuple(notes))


def _load(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with open_file(path) as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                raise ValueError("it holds a single array")
            missing = [name for name in _NAMES if name not in found.files]
            if missing:
                raise InputError(
                    f"{path} has no {', '.join(missing)} but {', '.join(found.files) or 'nothing'};"
                    f" it must have {', '.join(_NAMES)}, as Keras's mnist.npz has"
                )
            return {name: found[name] for name in _NAMES}
    # The readers of ZIP files and of arrays raise any of these on a damaged file.
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        MemoryError,
        NotImplementedError,
        RuntimeError,
        SyntaxError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(
            f"cannot read {path} as arrays of numbers: {reason or type(error).__name__}; write it "
            "by numpy.savez"
        ) from error


def _images(
    path: pathlib.Path, name: str, arrays: dict[str, np.ndarray], notes: list[str]
) -> np.ndarray:
    """Returns images, uint8 [N, H, W, C]."""
    array = arrays[name]
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or 0 in array.shape or array.shape[-1] not in MODES:
        raise InputError(
            f"{name} of {path} has the shape {arrays[name].shape}; images are [N, H, W] or "
            "[N, H, W, C] with 1, 3 or 4 channels"
        )
    if array.dtype.kind not in "buif":
        raise InputError(f"{name} of {path} is of {array.dtype}; pixels are numbers, such as uint8")
    if array.dtype == np.uint8:
        return array
    unit = array.dtype.kind in "bf"
    low, high, most = array.min(), array.max(), 1 if unit else 255
    if not (low >= 0 and high <= most):  # or NaN
        raise InputError(
            f"{name} of {path} has values of {low:g} to {high:g} in {array.dtype}; pixels are "
            "whole numbers of 0 to 255 or real ones of 0 to 1"
        )
    if unit:
        notes.append(f"{path}: pixels of {name} in {array.dtype} are read as 255 times their value")
        array = np.rint(array.astype(np.float32) * 255)
    return array.astype(np.uint8)


def _classes(
    path: pathlib.Path, name: str, arrays: dict[str, np.ndarray], count: int
) -> np.ndarray:
    """Returns classes, whole numbers [N]; Keras stores those of CIFAR as [N, 1]."""
    array = arrays[name]
    if array.shape not in ((count,), (count, 1)) or array.dtype.kind not in "ui":
        raise InputError(
            f"{name} of {path} is {array.dtype} {array.shape}; it must be {count} whole numbers, "
            f"one for each of x_{name[2:]}"
        )
    return array.reshape(-1)
