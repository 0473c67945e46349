import io

import numpy as np
import pytest
from PIL import Image

from dlcore.data.pictures import StoredImage, fit_square, opened, pixels
from dlcore.errors import InputError

RNG = np.random.default_rng(0)


def gray(height: int, width: int) -> np.ndarray:
    return RNG.integers(1, 256, (height, width), np.uint8)


def fitted(array: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(fit_square(Image.fromarray(array), size))


def test_28_becomes_32_by_a_border_of_two() -> None:
    image = gray(28, 28)
    assert np.array_equal(fitted(image, 32), np.pad(image, 2))


def test_8_becomes_32_by_a_factor_of_four() -> None:
    # Bilinear weights of an enlargement by 4: the pixel centres lie at odd eighths.
    image = gray(8, 8).astype(np.float64)
    centres = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(8)))
    expected = weights @ image @ weights.T
    assert np.abs(fitted(image.astype(np.uint8), 32) - expected).max() <= 1


@pytest.mark.parametrize(
    ("height", "width", "size", "content"),
    [(10, 10, 32, (30, 30)), (10, 20, 32, (10, 20)), (7, 4, 14, (14, 8)), (5, 5, 5, (5, 5))],
)
def test_smaller_images_are_enlarged_by_a_whole_factor_and_centred(
    height: int, width: int, size: int, content: tuple[int, int]
) -> None:
    result = fitted(gray(height, width), size)
    assert result.shape == (size, size)
    top, left = (size - content[0]) // 2, (size - content[1]) // 2
    inside = np.zeros((size, size), bool)
    inside[top : top + content[0], left : left + content[1]] = True
    assert (result[inside] > 0).all() and (result[~inside] == 0).all()


def test_larger_images_are_cropped_at_the_centre() -> None:
    image = gray(20, 50)
    assert np.array_equal(fitted(image, 20), image[:, 15:35])


@pytest.mark.parametrize("shape", [(64, 48), (20, 50), (33, 32), (1000, 3)])
def test_larger_images_are_resized_by_their_shorter_side(shape: tuple[int, int]) -> None:
    # A ramp over the whole image keeps its slope: crop and resize change both axes alike.
    ramp = np.broadcast_to(np.linspace(0, 255, shape[1]), shape).astype(np.uint8)
    result = fitted(ramp, 32)
    assert result.shape == (32, 32)
    seen = 255 * min(shape) / shape[1]
    assert abs(float(result[16, -1]) - float(result[16, 0]) - seen * 31 / 32) < 12


@pytest.mark.parametrize(
    ("mode", "colour", "channels", "expected"),
    [
        ("RGB", (10, 20, 30), 3, [10, 20, 30]),
        ("RGBA", (10, 20, 30, 0), 3, [10, 20, 30]),
        ("RGBA", (10, 20, 30, 40), 4, [10, 20, 30, 40]),
        ("L", 77, 3, [77, 77, 77]),
        ("LA", (77, 5), 1, [77]),
        ("1", 1, 1, [255]),
        ("I;16", 77 * 256 + 200, 1, [77]),
        ("CMYK", (0, 255, 255, 0), 3, [255, 0, 0]),
        ("RGB", (255, 0, 0), 1, [76]),  # ITU-R 601: 0.299 of red.
    ],
)
def test_colours(mode: str, colour: object, channels: int, expected: list[int]) -> None:
    array = pixels(Image.new(mode, (3, 2), colour), channels=channels)
    assert array.shape == (2, 3, channels) and array.dtype == np.uint8
    assert (array == np.array(expected)).all()


def test_palette_images_get_their_colours() -> None:
    image = Image.new("RGB", (4, 4), (200, 100, 0)).quantize(4)
    assert image.mode == "P"
    assert pixels(image, channels=3)[0, 0].tolist() == [200, 100, 0]


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"no image", png(Image.fromarray(gray(64, 64)))[:2000]],
    ids=["empty", "text", "truncated"],
)
def test_damaged_files_are_named(data: bytes) -> None:
    with pytest.raises(InputError, match=r"cannot read image cat 7: .*; repair or remove it$"):
        with opened(StoredImage(data, 0, "cat 7")) as image:
            pixels(image, channels=1)


def test_32_bit_images_are_refused() -> None:
    file = io.BytesIO()
    Image.new("F", (2, 2)).save(file, "tiff")
    with pytest.raises(InputError, match="cannot read image x: pixels of 32 bits"):
        with opened(StoredImage(file.getvalue(), 0, "x")) as image:
            pixels(image, channels=1)
