"""Every entry of the glossary has a picture, or a reason for having none."""

import pathlib
import sys

import matplotlib
import pytest

from dlcore import glossary

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "docs"))

import pictures  # noqa: E402
from pictures.drawing import STYLE  # noqa: E402

TERMS = {term.name for term in glossary.terms()}
# The quick ones; the site draws all of them.
QUICK = {"activation_elu", "residual", "windows", "beam", "addressing", "overlaps", "word_tree"}


def drawn(picture, folder):
    path = folder / f"{picture.name}.svg"
    with matplotlib.rc_context(STYLE):
        picture.draw().savefig(path, metadata={"Date": None})
    return path.read_text(encoding="utf-8")


def test_every_term_has_a_picture_or_a_reason():
    shown = {term for picture in pictures.PICTURES for term in picture.terms}
    assert shown <= TERMS and pictures.WITHOUT.keys() <= TERMS
    assert TERMS - shown == pictures.WITHOUT.keys()


def test_every_picture_says_what_it_shows_under_a_name_of_its_own():
    names = [picture.name for picture in pictures.PICTURES]
    assert len({*names}) == len(names)
    for picture in pictures.PICTURES:
        assert picture.terms and 25 < len(picture.alt) < 400, picture.name
        assert picture.alt.endswith("."), picture.name


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(one, marks=[] if one.name in QUICK else pytest.mark.slow)
        for one in pictures.PICTURES
    ],
    ids=lambda picture: picture.name,
)
def test_a_picture_is_drawn_the_same_each_time(picture, tmp_path):
    text = drawn(picture, tmp_path)
    assert "<svg" in text and len(text) > 2000
    assert picture.name not in QUICK or text == drawn(picture, tmp_path)


def test_the_beam_shows_what_the_text_beside_it_says():
    (beam,) = (picture for picture in pictures.PICTURES if picture.name == "beam")
    with matplotlib.rc_context(STYLE):
        lines, names = beam.draw().axes[0].get_legend_handles_labels()
    ends = {name: float(line.get_ydata()[-1]) for line, name in zip(lines, names, strict=True)}
    assert ends == {"found with a beam of 1": 8.5, "found with a beam of 2": 3.5}
