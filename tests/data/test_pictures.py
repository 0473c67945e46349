import io
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, UnidentifiedImageError

from dlcore.data import load_images, pictures
from dlcore.data.pictures import (
    CUT,
    FORMATS,
    ON_WHITE,
    SCALED,
    TURNED,
    UPPER,
    StoredImage,
    bits_of,
    fit_square,
    opened,
    pixels,
    read_images,
    upright_size,
)
from dlcore.data.stand_in import STAND_IN
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
        ("RGBA", (10, 20, 30, 255), 3, [10, 20, 30]),
        ("RGBA", (10, 20, 30, 0), 3, [255, 255, 255]),
        ("RGBA", (0, 100, 255, 51), 3, [204, 224, 255]),  # 0.2 of the colour, 0.8 of white
        ("RGBA", (10, 20, 30, 40), 4, [10, 20, 30, 40]),
        ("L", 77, 3, [77, 77, 77]),
        ("LA", (77, 255), 1, [77]),
        ("LA", (5, 51), 1, [205]),
        ("1", 1, 1, [255]),
        ("I;16", 77 * 256 + 200, 1, [77]),
        ("I;16B", 77 * 256 + 200, 3, [77, 77, 77]),
        ("I", 77 * 256 + 200, 1, [77]),
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


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.eps", "a"])
def test_postscript_is_not_run(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a picture is opened, whatever its name."""
    started: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **_: started.append(given))
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "dog").mkdir()
    for place in ("cat/z.png", "dog/b.png", "dog/c.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / place)
    path = tmp_path / "data" / "cat" / name
    path.write_bytes(POSTSCRIPT)
    rows = f"cat/{name},cat cat/z.png,cat dog/b.png,dog dog/c.png,dog".split()
    (tmp_path / "data" / "table.csv").write_text("\n".join(rows))
    for read in (
        lambda: load_images(data_path=tmp_path / "data"),
        lambda: load_images(data_path=tmp_path / "data" / "table.csv"),
        lambda: read_images([path], (8, 8, 3)),
        lambda: bits_of([StoredImage(POSTSCRIPT, 0, name)]),
    ):
        with pytest.raises(InputError, match=f"cannot read image .*{name}: .* formats BMP, GIF"):
            read()
    for decode in (STAND_IN.image.decode_png, STAND_IN.image.decode_jpeg):
        with pytest.raises(UnidentifiedImageError):
            decode(POSTSCRIPT)
    assert not started


@pytest.mark.parametrize("form", ["eps", "pcx", "tga", "ico", "icns", "sgi", "msp", "dds"])
def test_formats_that_are_not_read(form: str) -> None:
    image = stored(Image.new("1" if form == "msp" else "RGB", (32, 32)), form)
    with pytest.raises(InputError, match="cannot read image x: it is damaged, or of none of the"):
        with opened(image):
            pass


@pytest.mark.parametrize("form", FORMATS)
def test_formats_that_are_read(form: str) -> None:
    image = Image.new("RGB", (32, 32), (255, 255, 255))
    with opened(stored(image, form)) as found:
        assert pixels(found, channels=3).min() > 250


def test_images_that_unpack_without_end() -> None:
    """By their size; of a line that is fitted into a square only what is kept is resized."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        whole = kind + body
        return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))

    def file(width: int, height: int, data: bytes = b"") -> StoredImage:
        header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
        chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
        return StoredImage(b"\x89PNG\r\n\x1a\n" + chunks, 0, "bomb")

    for width, height in ((1 << 20, 1 << 20), (1 << 31, 1), (200_000_000, 1)):
        with pytest.raises(InputError, match="cannot read image bomb: "):
            with opened(file(width, height)) as image:
                pixels(image, channels=3)
    for width, height in ((1, 1 << 20), (1 << 20, 1)):
        rows = (b"\0" + bytes((width + 7) // 8)) * height
        with opened(file(width, height, rows)) as image:
            assert not pixels(image, channels=1, size=224).any()


@pytest.mark.parametrize("shape", [(300, 401), (401, 300), (1000, 224), (225, 226), (97, 641)])
def test_resizing_what_is_kept_is_resizing_all(shape: tuple[int, int]) -> None:
    image = Image.fromarray(gray(*shape))
    scale = 64 / min(shape)
    width, height = max(64, round(shape[1] * scale)), max(64, round(shape[0] * scale))
    left, top = (width - 64) // 2, (height - 64) // 2
    whole = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), int)
    difference = np.abs(np.asarray(fit_square(image, 64), int) - whole[top:, left:][:64, :64])
    # PIL rounds the sides of the part that it resizes to 24 bits.
    assert difference.max() <= 1 and (difference > 0).mean() < 0.02


@pytest.mark.parametrize(
    ("shape", "size", "factor"),
    [((960, 1280), 32, 8), ((400, 800), 64, 2), ((400, 800), 67, 1), ((401, 800), 32, 1)],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_decoded_as_small_as_does_not_show(
    shape: tuple[int, int], size: int, factor: int, orientation: int, monkeypatch
) -> None:
    y, x = np.mgrid[: shape[0], : shape[1]]
    smooth = 127 + 60 * np.sin(y / 50)[..., None] + 60 * np.cos(x / 70)[..., None] * [1, -1, 0.5]
    exif = Image.Exif()
    exif[0x0112] = orientation
    jpeg = stored(Image.fromarray(smooth.astype(np.uint8)), "jpeg", quality=95, exif=exif)
    with opened(jpeg) as image:
        found = pixels(image, channels=3, size=size).astype(int)
        assert sorted(image.size) == [side // factor for side in sorted(shape)]
    monkeypatch.setattr(pictures, "_shrink", lambda *_: None)
    with opened(jpeg) as image:
        plain = pixels(image, channels=3, size=size).astype(int)
    assert np.abs(found - plain).max() <= 3 and np.abs(found - plain).mean() < 0.5


def stored(image: Image.Image, form: str = "png", **options: object) -> StoredImage:
    file = io.BytesIO()
    image.save(file, form, **options)
    return StoredImage(file.getvalue(), 0, "x")


# What was seen, of a camera that was held in each of the eight ways (EXIF 2.3, table 6).
HELD = {
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.swapaxes(0, 1),
    6: lambda seen: np.rot90(seen, 1),
    7: lambda seen: np.rot90(seen, 2).swapaxes(0, 1),
    8: lambda seen: np.rot90(seen, -1),
}


@pytest.mark.parametrize("form", ["png", "tiff", "jpeg", "webp"])
@pytest.mark.parametrize("orientation", HELD)
def test_images_are_turned_upright(orientation: int, form: str) -> None:
    seen = np.zeros((16, 24, 3), np.uint8)
    seen[:8, :16, 0], seen[8:, 8:, 1] = 250, 200
    tags = Image.Exif()
    tags[0x0112] = orientation
    lossless = {"quality": 100} if form == "jpeg" else {"lossless": True} if form == "webp" else {}
    file = stored(Image.fromarray(HELD[orientation](seen).copy()), form, exif=tags, **lossless)
    notes: list[str] = []
    with opened(file) as image:
        assert upright_size(image) == (16, 24)
        found = pixels(image, channels=3, notes=notes)
    assert np.abs(found.astype(int) - seen).mean() < (30 if form == "jpeg" else 1e-9)
    assert notes == ([TURNED] if orientation > 1 else [])


def test_damaged_tags_turn_nothing() -> None:
    array = gray(3, 5)
    for tags in (b"Exif\0\0nothing", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b""):
        with opened(stored(Image.fromarray(array), exif=tags)) as image:
            assert np.array_equal(pixels(image, channels=1)[..., 0], array)


RGBA_INK = np.array([0, 0, 0, 1], np.uint8)


@pytest.mark.parametrize("kind", ["palette", "key of a palette", "key of gray", "key of colours"])
def test_transparency_of_every_kind_is_put_on_white(kind: str) -> None:
    """Black ink on nothing, as scans of signatures are."""
    ink = np.zeros((4, 6), bool)
    ink[1:3, 2] = True
    file = {
        "palette": lambda: stored(
            Image.fromarray(np.where(ink, 255, 0)[..., None].astype(np.uint8) * RGBA_INK).quantize(
                4
            )
        ),
        "key of a palette": lambda: stored(
            Image.fromarray(np.where(ink, 1, 0).astype(np.uint8)).convert("P"), transparency=0
        ),
        "key of gray": lambda: stored(
            Image.fromarray(np.where(ink, 0, 7).astype(np.uint8)), transparency=7
        ),
        "key of colours": lambda: stored(
            Image.fromarray(np.where(ink, 0, 7).astype(np.uint8)).convert("RGB"),
            transparency=(7, 7, 7),
        ),
    }[kind]()
    for channels in (1, 3):
        notes: list[str] = []
        with opened(file) as image:
            found = pixels(image, channels=channels, notes=notes)
        assert notes == [ON_WHITE]
        assert (found[~ink] == 255).all() and (found[ink] < 5).all()


def test_what_is_opaque_is_not_noted() -> None:
    notes: list[str] = []
    pixels(Image.new("RGBA", (3, 2), (1, 2, 3, 255)), channels=3, notes=notes)
    pixels(Image.new("RGBA", (3, 2), (1, 2, 3, 0)), channels=4, notes=notes)
    assert notes == []


@pytest.mark.parametrize("bits", range(8, 17))
@pytest.mark.parametrize("form", ["png", "tiff"])
def test_values_are_scaled_by_the_bits_that_the_files_hold(bits: int, form: str) -> None:
    """256 levels remain, whatever the bits, as one scale for all images."""
    levels = np.arange(1 << bits, dtype=np.uint16)
    bright = levels[-(1 << 8) :].reshape(16, 16)
    files = [stored(Image.fromarray(part), form) for part in (bright >> 4, bright, bright >> 1)]
    assert bits_of([*files, stored(Image.new("RGB", (2, 2), "white"))]) == bits
    with opened(stored(Image.fromarray(levels.reshape(16, -1)), form)) as image:
        notes: list[str] = []
        found = pixels(image, channels=1, bits=bits, notes=notes)
    assert np.array_equal(found.ravel(), levels * 256.0 // (1 << bits))
    assert len(np.unique(found)) == 256 and notes == [SCALED]


def test_values_beyond_the_bits_are_cut_and_noted() -> None:
    notes: list[str] = []
    image = Image.fromarray(np.array([[0, 4095, 4096, 65535]], np.uint16))
    assert pixels(image, channels=1, bits=12, notes=notes).ravel().tolist() == [0, 255, 255, 255]
    assert notes == [SCALED, CUT]
    assert bits_of([]) == 16 and bits_of([stored(Image.new("L", (2, 2)))]) == 16


def test_colours_of_16_bits_are_noted() -> None:
    """A PNG by hand, for Pillow writes none: 2 x 1 pixels of red, green and blue."""
    row = b"\0" + np.array([0x1234, 0, 0xFFFF, 0x0100, 0, 0], ">u2").tobytes()
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")):
        checked = kind + body
        file += struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))
    notes: list[str] = []
    with opened(StoredImage(file, 0, "x")) as image:
        found = pixels(image, channels=3, notes=notes)
    assert found.tolist() == [[[0x12, 0, 0xFF], [1, 0, 0]]] and notes == [UPPER]


def test_read_images_reads_as_a_data_set_is_read(tmp_path: pathlib.Path) -> None:
    """Turned, on white, and of 12 bits."""
    tags = Image.Exif()
    tags[0x0112] = 6
    deep = np.arange(15, dtype=np.uint16).reshape(3, 5) * 290
    Image.fromarray(deep).save(tmp_path / "deep.png", exif=tags)
    ink = Image.new("LA", (5, 3), (0, 0))
    ink.putpixel((1, 2), (0, 255))
    ink.save(tmp_path / "ink.png", exif=tags)
    for size in (None, 7):
        shape = (5, 3, 1) if size is None else (size, size, 1)
        found = read_images([tmp_path / "deep.png", tmp_path / "ink.png"], shape, bits=12)
        if size is None:
            assert np.array_equal(found[0, ..., 0], np.rot90(deep >> 4, -1))
            assert found[1].sum() == 255 * 14 and found[1, 1, 0, 0] == 0
        for path, array in zip(("deep.png", "ink.png"), found, strict=True):
            with opened(StoredImage(tmp_path / path, 0, path)) as image:
                expected = pixels(image, channels=1, size=size, bits=12)
            assert np.array_equal(array, expected)


@pytest.mark.parametrize("values", [[-1, 5], [0, 1 << 16]])
def test_values_of_more_than_16_bits_are_refused(values: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.int32))
    with pytest.raises(InputError, match="cannot read image x: pixels of 32 bits beyond 0..65535"):
        with opened(stored(image, "tiff")) as image:
            pixels(image, channels=1)


def test_32_bit_images_are_refused() -> None:
    file = io.BytesIO()
    Image.new("F", (2, 2)).save(file, "tiff")
    with pytest.raises(InputError, match="cannot read image x: pixels of 32 bits"):
        with opened(StoredImage(file.getvalue(), 0, "x")) as image:
            pixels(image, channels=1)
