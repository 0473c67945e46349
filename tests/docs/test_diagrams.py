"""The diagrams of the pages: text fits into its box, arrows lead down, and each is described."""

import pathlib
import re
import sys

import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))

from diagrams import DIAGRAMS, Diagram, svg  # noqa: E402

CHARACTER = 6.7  # pixels that one takes on average, set in bold at 12 pixels


@pytest.mark.parametrize("name", DIAGRAMS)
def test_the_text_of_a_diagram_fits_into_its_boxes(name):
    drawn = svg(DIAGRAMS[name])
    widths = re.findall(r'<rect [^>]*width="([\d.]+)"[^>]*/>((?:<text [^>]*>[^<]*</text>)+)', drawn)
    assert len(widths) == sum(map(len, DIAGRAMS[name].rows))
    for width, texts in widths:
        for line in re.findall(r">([^<]+)<", texts):
            assert len(line) * CHARACTER < float(width), line


@pytest.mark.parametrize("name", DIAGRAMS)
def test_arrows_lead_from_a_row_to_the_next(name):
    rows = DIAGRAMS[name].rows
    for (row, place), (to_row, to_place), _ in DIAGRAMS[name].arrows:
        assert to_row == row + 1 and rows[row][place] and rows[to_row][to_place]


def test_each_diagram_is_on_a_page_and_each_page_has_its_diagram():
    pages = [path.read_text(encoding="utf-8") for path in (DOCS / "concepts").glob("*.md")]
    shown = re.findall(r"^```\{diagram\} (\S+)$", "\n".join(pages), re.MULTILINE)
    assert sorted(shown) == sorted(DIAGRAMS)


def test_a_diagram_is_drawn_and_described():
    drawn = svg(Diagram('a "leads" to b', [["a"], ["b\nfile.py"]], [((0, 0), (1, 0), "x < y")]))
    assert drawn.count("<rect") == 2 and drawn.count("<path") == 2
    assert 'role="img" aria-label="a &quot;leads&quot; to b"' in drawn
    assert ">x &lt; y<" in drawn and ">file.py<" in drawn
