"""Stored images and how they become arrays: opening, colour, size.

Shapes: H W C the height, width and channels of an image, S the side of a square one.
"""

import contextlib
import io
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from dlcore.errors import InputError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class StoredImage(NamedTuple):
    """An image as it is stored, with its class.

    Attributes:
        file: the bytes of an image file, or the path of one.
        label: the number of its class.
        name: what an error calls it.
    """

    file: bytes | pathlib.Path
    label: int
    name: str


@contextlib.contextmanager
def opened(stored: StoredImage) -> Iterator[Image.Image]:
    """The PIL image of `stored`, its pixels not decoded yet.

    Raises:
        InputError: when the file is not a readable image, here or inside the `with` block.
    """
    try:
        file = io.BytesIO(stored.file) if isinstance(stored.file, bytes) else stored.file
        with Image.open(file) as image:
            yield image
    except InputError:
        raise
    # PIL's readers let whatever a damaged file trips over through.
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
    """Whether an image has no colour by its mode."""
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """An image fitted into a square of side S = `size` without distortion.

    A smaller image is enlarged by the largest whole factor that fits and centred on black: digits
    of 28 x 28 become 32 x 32 by a border of 2, as in LeCun et al. 1998. A larger one is resized
    until its shorter side fits, and cropped at the centre.
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
    """The pixels of an image, uint8 [H, W, C].

    Args:
        image: of any mode of 8 or 16 bits; 16 bits keep their upper 8.
        channels: C; 1 (gray), 3 (red, green, blue) or 4 (and alpha).
        size: the side S of the square to fit it into (`fit_square`); None keeps H and W.

    Raises:
        ValueError: when the image has 32 bits a pixel and channel, whose range nobody knows.
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
