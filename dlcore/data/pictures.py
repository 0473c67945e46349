"""Turns stored images into arrays: opens them and converts their colours and sizes.

Shapes: H W C the height, width and channels of an image, S the side of a square one.
"""

import concurrent.futures
import contextlib
import io
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from dlcore.errors import InputError
from dlcore.files import open_file

# The formats of images that are read. PIL knows many more and goes by the content of a file, not by
# its name; among them is PostScript, a programming language, for which it starts Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Times the pixels of a square that is wanted, to which a JPEG may be shrunk as it is decoded.
_SPARE = 3
_ORIENTATION = 0x0112  # the tag of EXIF that says how a camera was held
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Those that exchange height and width.
SWAPPING = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
# What is noted of images that are not read as they are stored.
TURNED = "turned upright as their EXIF orientation says"
ON_WHITE = "with transparency, put on white"
SCALED = "of more than 8 bits, scaled to 8"
CUT = "brighter than the bits that the data has, cut there"
UPPER = "of 16 bits in each of several channels, of which the upper 8 are read"


class StoredImage(NamedTuple):
    """An image as it is stored, with its class, or with its labels if it may have several.

    Attributes:
        file: the bytes of an image file, or its path, or the pixels, uint8 [H, W, C].
        label: the number of its class, or uint8 [K], 1 for each of the K classes that it is of.
        name: its name in error messages.
    """

    file: bytes | pathlib.Path | np.ndarray
    label: int | np.ndarray
    name: str


def image_suffixes() -> frozenset[str]:
    """Returns the suffixes of supported image files, such as ".jpg"."""
    # Asked for here, because it imports the readers of all formats.
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, form in known if form in FORMATS)


@contextlib.contextmanager
def opened(stored: StoredImage) -> Iterator[Image.Image]:
    """Opens `stored` as a PIL image whose pixels are not decoded yet.

    Raises:
        InputError: when the file is not a readable image, on opening or inside the `with` block.
    """
    if isinstance(stored.file, np.ndarray):
        gray = stored.file.shape[-1] == 1
        yield Image.fromarray(stored.file[..., 0] if gray else stored.file)
        return
    try:
        with (
            io.BytesIO(stored.file) if isinstance(stored.file, bytes) else open_file(stored.file)
        ) as file:
            with Image.open(file, formats=FORMATS) as image:
                yield image
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            f"cannot read image {stored.name}: it is damaged, or of none of the formats "
            f"{', '.join(FORMATS)}; repair or remove it"
        ) from error
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


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """Returns the turn that makes an image upright; None if it is, or its tags are unreadable."""
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # whatever damaged tags make the reader raise; the pixels may be whole
        return None


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns height and width of an image once it is turned upright."""
    # PIL says itself how a TIFF will lie. The tags of a PNG may follow its pixels, so that they are
    # looked for only where they matter.
    turn = None
    if image.width != image.height and image.format != "TIFF":
        turn = turn_of(image)
    return (image.width, image.height) if turn in SWAPPING else (image.height, image.width)


def is_gray(image: Image.Image) -> bool:
    """Returns whether the mode of an image has no colours."""
    return image.mode in ("1", "L", "LA") or is_deep(image)


def is_deep(image: Image.Image) -> bool:
    """Returns whether the mode of an image has more than 8 bits, in one channel."""
    return image.mode == "I" or image.mode.startswith("I;16")


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
    whole = max(size, round(width * scale)), max(size, round(height * scale))
    left, top = (whole[0] - size) // 2, (whole[1] - size) // 2
    if scale == 1:
        return image.crop((left, top, left + size, top + size))
    # Only what is kept is resized.
    across, down = width / whole[0], height / whole[1]
    box = (left * across, top * down, (left + size) * across, (top + size) * down)
    return image.resize((size, size), Image.Resampling.BILINEAR, box)


def bits_of(images: Sequence[StoredImage], most: int = 1000) -> int:
    """Returns the number of bits that values use in images with more than 8 bits, from 8 to 16.

    Cameras and scanners put values of 10, 12 or 14 bits into files of 16.

    Args:
        images: the images of a data set; those with 8 bits are ignored.
        most: the largest number of images to look at, evenly spaced.

    Returns:
        The bits; 16 where no image has more than 8, or any has more than 16.
    """
    largest = -1
    for index in np.unique(np.linspace(0, len(images) - 1, min(most, len(images))).astype(int)):
        with opened(images[index]) as image:
            if is_deep(image):
                largest = max(largest, int(np.asarray(image).max()))
    return 16 if largest < 0 else min(16, max(8, largest.bit_length()))


def pixels(
    image: Image.Image,
    *,
    channels: int,
    size: int | None = None,
    bits: int = 16,
    notes: list[str] | None = None,
) -> np.ndarray:
    """Returns the pixels of an image, uint8 [H, W, C].

    Args:
        image: an image of any mode except "F", as it was opened. It is turned upright by its EXIF
            orientation, and transparent pixels are put on white, unless C is 4.
        channels: C; 1 (gray), 3 (red, green, blue) or 4 (and alpha).
        size: the side S of the square to fit it into (`fit_square`); None keeps H and W.
        bits: the bits of values in modes with more than 8, see `bits_of`; the upper 8 are kept.
        notes: collects the notes on the image, such as `ON_WHITE`.

    Raises:
        ValueError: when the values of a mode of 32 bits are not within 0..65535.

    >>> pixels(Image.new("L", (3, 2), 7), channels=3).shape
    (2, 3, 3)
    """
    found = []
    if not is_deep(image) and ";16" in str(getattr(image, "tile", "")):
        found.append(UPPER)
    if turn_of(image) is not None:
        found.append(TURNED)
    if size is not None and image.format == "JPEG":
        _shrink(image, size)
    image.load()  # PIL itself turns a TIFF as it loads it, and says then that it is upright.
    if (turn := turn_of(image)) is not None:
        image = image.transpose(turn)
    if image.mode == "F":
        raise ValueError(f"pixels of 32 bits (mode {image.mode}) are not supported, 8 or 16 are")
    if is_deep(image):
        # PIL's own conversion clips at 255.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(
                "pixels of 32 bits beyond 0..65535 are not supported, 8 or 16 bits are"
            )
        found += [SCALED, CUT] if values.max() >= 1 << bits else [SCALED]
        image = Image.fromarray(np.minimum(values >> (bits - 8), 255).astype(np.uint8))
    elif image.has_transparency_data and channels != 4:
        whole = image.convert("RGBA")
        if np.asarray(whole)[..., 3].min() < 255:
            found.append(ON_WHITE)
            image = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
    if image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
    if notes is not None:
        notes += found
    if size is not None:
        image = fit_square(image, size)
    return np.asarray(image).reshape(image.height, image.width, channels)


def _shrink(image: Image.Image, size: int) -> None:
    """Makes Pillow decode a JPEG at a half, a quarter or an eighth of its size.

    This is far quicker, and if three or more times the wanted pixels remain in a row, the result
    after the last resizing differs by less than a level on average. An image must keep its shape:
    an image whose sides the factor does not divide is left as it is.

    Args:
        image: an image that is opened and not decoded yet.
        size: the number of pixels that its shorter side is to have in the end.
    """
    for factor in (8, 4, 2):
        if min(image.size) >= factor * _SPARE * size and not any(n % factor for n in image.size):
            image.draft(None, (image.width // factor, image.height // factor))
            return


def read_images(
    images: Sequence[np.ndarray | str | os.PathLike[str] | StoredImage],
    shape: tuple[int, int, int],
    bits: int = 16,
) -> np.ndarray:
    """Returns images in one array, uint8 [N, H, W, C], read in the same way as a data set.

    Args:
        images: uint8 arrays of H W C pixels, paths of image files, or the bytes of such files.
            Where H = W, files are fitted into the square (`fit_square`); else they must have the
            shape.
        shape: (H, W, C).
        bits: the bits of the data set (`pixels`).

    Raises:
        InputError: when a file cannot be read, or an image is of another shape.
    """
    found = np.empty((len(images), *shape), np.uint8)

    def fill(number: int) -> None:
        image = images[number]
        if isinstance(image, np.ndarray):
            array, name = image, f"image {number}"
        else:
            if not isinstance(image, StoredImage):
                image = StoredImage(pathlib.Path(image), 0, str(image))
            array, name = _read(image, shape, bits), f"image {image.name}"
        if array.size != found[number].size:
            raise InputError(f"{name} has the shape {array.shape}; it must be {shape}")
        found[number] = array.reshape(shape)

    if all(isinstance(image, np.ndarray) for image in images):
        for number in range(len(images)):
            fill(number)
        return found
    # PIL lets other threads run while it decodes and resizes. `map` raises the first error.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in threads.map(fill, range(len(images))):
            pass
    return found


def _read(stored: StoredImage, shape: tuple[int, int, int], bits: int) -> np.ndarray:
    height, width, channels = shape
    size = height if height == width else None
    with opened(stored) as image:
        return pixels(image, channels=channels, size=size, bits=bits)


PHOTOGRAPHS = ("china.jpg", "flower.jpg")


def photograph(name: str) -> np.ndarray:
    """Returns a photograph that scikit-learn ships, uint8 [427, 640, 3]: one of `PHOTOGRAPHS`.

    They show a temple in China and a flower, both CC BY 2.0; scikit-learn's documentation names the
    photographers.
    """
    from sklearn import datasets

    return np.asarray(datasets.load_sample_image(name))


def read_picture(source: str, size: int | None = None) -> np.ndarray:
    """Returns a picture in colour whose longer side is `size` pixels, uint8 [H, W, 3].

    Args:
        source: the path of an image file, or one of `PHOTOGRAPHS` where there is no such file.
        size: the longer side; None keeps the picture's own.

    Raises:
        InputError: when there is no such file, or it cannot be read.
    """
    path = pathlib.Path(source).expanduser()
    if source in PHOTOGRAPHS and not path.exists():
        picture = photograph(source)
    elif not path.is_file():
        raise InputError(
            f"there is no picture {path}; give an image file, or one of "
            f"{', '.join(PHOTOGRAPHS)}, which are always available"
        )
    else:
        with opened(StoredImage(path, 0, str(path))) as image:
            picture = pixels(image, channels=3)
    if size is None:
        return picture
    height, width = picture.shape[:2]
    scale = size / max(height, width)
    return resized(picture, max(1, round(height * scale)), max(1, round(width * scale)))


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a picture uint8 [H, W, 1 or 3] resized by Lanczos resampling."""
    if picture.shape[:2] == (height, width):
        return picture
    flat = picture[..., 0] if picture.shape[-1] == 1 else picture
    image = Image.fromarray(flat).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(height, width, picture.shape[-1])
