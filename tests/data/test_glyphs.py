"""The characters of matplotlib's fonts, against outlines that are filled another way."""

import pathlib
import unicodedata

import matplotlib
import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from dlcore.data.builders import glyphs


def filled(font: str, character: str) -> np.ndarray:
    """Fills the outline of a character on a grid of 8 x 8 points a pixel, centred by its points."""
    file = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf")
    path = TextPath((0, 0), character, size=22 * 8, prop=FontProperties(fname=file))
    side = 32 * 8
    x, y = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    polygons = path.to_polygons()
    corners = np.concatenate(polygons)
    low, high = corners.min(0), corners.max(0)
    points = np.stack([x.ravel(), side - y.ravel()], 1) - side / 2 + (low + high) / 2
    inside = np.zeros(side * side, int)
    for polygon in polygons:
        # TrueType's outer contours go one way round and its holes the other way.
        ends = np.roll(polygon, -1, 0)
        area = (polygon[:, 0] * ends[:, 1] - polygon[:, 1] * ends[:, 0]).sum()
        mask = matplotlib.path.Path(polygon).contains_points(points)
        inside += np.sign(area).astype(int) * mask
    return 255 * (inside != 0).reshape(32, 8, 32, 8).mean((1, 3))


def test_pictures_are_the_outlines_at_one_scale() -> None:
    # H and p have flat sides and round ones, q a tail, the comma is small.
    characters, _ = glyphs.distinct_characters([*map(ord, "Hpq,")])
    assert [chr(character.code) for character in characters] == [",", "H", "p", "q"]
    for character in characters:
        for font in (0, 9, 12):
            picture = character.pictures[character.fonts.index(font)].astype(float)
            wanted = filled(glyphs.FONTS[font], chr(character.code))
            # The drawing is centred to a quarter of a pixel.
            assert np.abs(picture - wanted).max() < 100
            assert abs(picture.sum() / wanted.sum() - 1) < 0.02


def test_what_looks_the_same_is_there_once() -> None:
    # The A of three scripts; full stop and middle dot, which differ in their places alone; an
    # arrow and a blank, a mark, a dash that is too long; ae, which an italic font draws otherwise.
    given = "A\u0391\u0410\u00b7.\u2192 \u0301\u2015\u2588\u00e6\u04d5B\u0392"
    characters, left_out = glyphs.distinct_characters([*map(ord, given)])
    assert [chr(character.code) for character in characters] == [".", "A", "B", "\u00e6", "\u2192"]
    assert left_out == {
        "marks and spaces": 2,
        "too large": 1,
        "too few pictures": 1,
        "look alike": 5,
    }
    by_name = {chr(character.code): character for character in characters}
    assert by_name["A"].fonts == tuple(range(16))
    # Arrows are not slanted, so that oblique fonts draw those of the upright ones.
    assert len(by_name["\u2192"].fonts) < 12
    assert by_name["A"].name == "U+0041 LATIN CAPITAL LETTER A"
    scripts = [character.script for character in characters]
    assert scripts == ["Symbol", "Latin", "Latin", "Latin", "Symbol"]
    for character in characters:
        pictures = character.pictures
        assert len({picture.tobytes() for picture in pictures}) == len(pictures)
        assert pictures.max((1, 2)).min() > 100
        for border in (pictures[:, [0, -1]], pictures[:, :, [0, -1]]):
            assert not border.any()


def test_whole_scripts_and_one_character_in_five_are_held_out() -> None:
    none = np.zeros((6, 32, 32), np.uint8)
    codes = [*range(0x41, 0x41 + 10), *range(0x3B1, 0x3B1 + 5), *range(0x430, 0x434), 0x561, 0x10D0]
    characters = [glyphs.Character(code, none, tuple(range(6))) for code in codes]
    parts = glyphs.split_scripts(characters)
    codes_of = {name: [character.code for character in part] for name, part in parts.items()}
    assert codes_of["test"] == [0x43, 0x48, 0x3B3]
    assert codes_of["unseen_scripts"] == [*range(0x430, 0x434), 0x561, 0x10D0]
    assert sorted(sum(codes_of.values(), [])) == sorted(codes)


@pytest.mark.slow
def test_all_characters() -> None:
    characters, left_out = glyphs.distinct_characters()
    parts = glyphs.split_scripts(characters)
    assert len(characters) > 1600 and left_out["look alike"] > 200
    assert min(map(len, parts.values())) > 200
    owners: dict[bytes, int] = {}
    for character in characters:
        assert glyphs.FEWEST_PICTURES <= len(character.pictures) <= 16
        assert unicodedata.category(chr(character.code))[0] not in "CMZ"
        for picture in character.pictures:
            assert owners.setdefault(picture.tobytes(), character.code) == character.code
