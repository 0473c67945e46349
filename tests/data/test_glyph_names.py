"""Characters and their names, against outlines and Unicode's own decompositions."""

import pathlib
import unicodedata

import matplotlib
import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from dlcore.data import load_captions
from dlcore.data.builders import glyph_names, glyphs

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def test_characters_stand_on_the_line() -> None:
    # Flat feet stand on it, a comma and a p go below, a superscript stands above.
    font = glyphs.open_font("DejaVuSans")
    file = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    for character in "HEx,p'\u00b2\u00e9\u1ebf-":
        picture = glyphs.draw(font, character, glyph_names.BASELINE)
        assert picture is not None
        path = TextPath((0, 0), character, size=22, prop=FontProperties(fname=file))
        height = np.concatenate(path.to_polygons())[:, 1]
        low, high = height.min(), height.max()
        rows = np.flatnonzero(picture.max(1) > 0)
        assert abs(rows[0] - np.floor(glyph_names.BASELINE - high + 0.25)) <= 1
        assert abs(rows[-1] + 1 - np.ceil(glyph_names.BASELINE - low - 0.25)) <= 1
    assert glyphs.draw(font, "\u1685", glyph_names.BASELINE) is None


def test_what_cannot_be_learnt_is_left_out() -> None:
    # Every letter in both cases, and with the acute where there is one.
    acute = [unicodedata.normalize("NFC", letter + "\u0301") for letter in LETTERS]
    given = [*LETTERS, *(letter for letter in acute if len(letter) == 1)]
    others = ["\u0391", " ", "\u0301", "\u1685", "\u2801"]  # Alpha, space, mark, tall, Braille
    found, left_out = glyph_names.named_characters([*map(ord, given + others)])
    words = {word for one in found for word in glyph_names.name_of(one.code).split()}
    # Only words of ten names or more are left: no single letter has as many.
    assert words == set() and left_out["marks and spaces"] == 2
    assert left_out["too large"] == 1 and left_out["look alike"] == 1
    every = [one for one in range(0x1E00, 0x1EFA)] + [*map(ord, LETTERS)]
    found, left_out = glyph_names.named_characters(every)
    names = [glyph_names.name_of(one.code) for one in found]
    assert "latin small letter e with circumflex and acute" in names
    counts = {word: sum(word in name.split() for name in names) for word in "q acute a".split()}
    assert counts["q"] == 0 and counts["acute"] >= 10 and counts["a"] >= 10
    # Patterns of points are told by their numbers, each a word.
    points = [glyph_names.name_of(code) for code in (0x2801, 0x28FF)]
    assert points == ["braille pattern dots 1", "braille pattern dots 1 2 3 4 5 6 7 8"]
    assert glyph_names.name_of(0x1F03A) == "domino tile horizontal 0 1 0 2"
    assert glyph_names.name_of(0x1D7D8) == "mathematical double-struck digit zero"
    braille, _ = glyph_names.named_characters(range(0x2800, 0x2900))
    assert len(braille) > 150
    for one in found:
        assert 1 <= len(one.fonts) <= 12
        assert len({picture.tobytes() for picture in one.pictures}) == len(one.pictures)


def test_parts_share_no_character() -> None:
    none = np.zeros((2, 32, 32), np.uint8)
    characters = [glyphs.Character(code, none, (0, 1)) for code in range(0x400, 0x480)]
    parts = glyph_names.parts(characters)
    codes = [one.code for part in parts.values() for one in part]
    assert sorted(codes) == [*range(0x400, 0x480)]
    assert len(parts["train"]) > len(parts["test"]) > len(parts["validation"]) > 0
    # A character's part does not depend on which others there are.
    again = glyph_names.parts(characters[::2])
    for part, own in again.items():
        assert {one.code for one in own} <= {one.code for one in parts[part]}


@pytest.mark.slow
def test_the_whole_data_set(tmp_path: pathlib.Path) -> None:
    data = load_captions(data_dir=tmp_path)
    assert data.valid is not None and data.image_shape == (32, 32, 1)
    parts = {"train": data.train, "valid": data.valid, "test": data.test}
    names = {part: {*of.captions} for part, of in parts.items()}
    assert len(names["train"]) > 1500 and len(data.train) > 12_000
    (note,) = data.notes
    assert "left out: " in note and "look alike" in note and "words of few names" in note
    # One picture of each held-out character, none of which is trained on.
    assert len(data.test) == len(names["test"]) > 150
    assert not names["train"] & (names["valid"] | names["test"])
    trained = {word for (name,) in names["train"] for word in name.split()}
    assert all(word in trained for (name,) in names["test"] for word in name.split())
