"""Turns stored images into arrays: opens them and converts their colours and sizes.

Shapes: H W C the height, width and channels of an image, S the side of a square one.
"""

import contextlib
import io
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from dlcore.errors import InputError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class StoredImage(NamedTuple):
    """An image as it is stored, with its class.

    Attributes:
        file: the bytes of an image file, or its path.
        label: the number of its class.
        name: its name in error messages.
    """

    file: bytes | pathlib.Path
    label: int
    name: str


@contextlib.contextmanager
def opened(stored: StoredImage) -> Iterator[Image.Image]:
    """Opens `stored` as a PIL image whose pixels are not decoded yet.

    Raises:
        InputError: when the file turns out not to be a readable image, here or inside the `with`
            block.
    """
    try:
        file = io.BytesIO(stored.file) if isinstance(stored.file, bytes) else stored.file
        with Image.open(file) as image:
            yield image
    except InputError:
        raise
    # PIL's readers raise any of these on a damaged file.
    except (
        OSError,
        SyntaxError,
        ValueError,
        IndexError,
        RuntimeError,
        Image.DecompressionBombError,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"cannot read image {stored.name}: {reason}; repair or remove it"
        ) from error


def is_gray(image: Image.Image) -> bool:
    """Returns whether the mode of an image has no colours."""
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """Fits an image into a square of side S = `size` without distortion.

    A smaller image is enlarged by the largest whole factor that fits and centred on black: digits
    of 28 x 28 become 32 x 32 by a border of 2, as in LeCun et al. 1998. A larger image is resized
    until its shorter side fits, and cropped at the centre.

    >>> fit_square(Image.new("L", (28, 28), 255), 32).getbbox()  # left, top, right, bottom
    (2, 2, 30, 30)
    """
    width, height = image.size
    if max(width, height) <= size:
        factor = size // max(width, height)
        if factor > 1:
            image = image.resize((width * factor, height * factor), Image.Resampling.BILINEAR)
        square = Image.new(image.mode, (size, size))
        square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
        return square
    scale = size / min(width, height)
    if scale != 1:
        resized = (max(size, round(width * scale)), max(size, round(height * scale)))
        image = image.resize(resized, Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def pixels(image: Image.Image, *, channels: int, size: int | None = None) -> np.ndarray:
    """Returns the pixels of an image, uint8 [H, W, C].

    Args:
        image: an image of any mode of 8 or 16 bits a channel; of 16 the upper 8 are kept.
        channels: C; 1 (gray), 3 (red, green, blue) or 4 (and alpha).
        size: the side S of the square to fit it into (`fit_square`); None keeps H and W.

    Raises:
        ValueError: when the image has 32 bits a channel, whose range is unknown.

    >>> pixels(Image.new("L", (3, 2), 7), channels=3).shape
    (2, 3, 3)
    """
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits (mode {image.mode}) are not supported, 8 or 16 are")
    if image.mode.startswith("I;16"):
        # PIL's own conversion clips at 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert(MODES[channels])
    if size is not None:
        image = fit_square(image, size)
    return np.asarray(image).reshape(image.height, image.width, channels)


def read_images(
    images: Sequence[np.ndarray | str | os.PathLike[str]], shape: tuple[int, int, int]
) -> np.ndarray:
    """Returns images in one array, uint8 [N, H, W, C].

    Args:
        images: uint8 arrays of H W C pixels, or paths of image files. Where the images are square,
            files are fitted into the square (`fit_square`); else they must be of the shape.
        shape: (H, W, C).

    Raises:
        InputError: when a file cannot be read, or an image is of another shape.
    """
    found = np.empty((len(images), *shape), np.uint8)
    for number, image in enumerate(images):
        array = image if isinstance(image, np.ndarray) else _read(image, shape)
        if array.size != found[number].size:
            name = f"image {number}" if isinstance(image, np.ndarray) else f"image {image}"
            raise InputError(f"{name} has the shape {array.shape}; it must be {shape}")
        found[number] = array.reshape(shape)
    return found


def _read(path: str | os.PathLike[str], shape: tuple[int, int, int]) -> np.ndarray:
    height, width, channels = shape
    with opened(StoredImage(pathlib.Path(path), 0, str(path))) as image:
        return pixels(image, channels=channels, size=height if height == width else None)
