"""The check of the built site finds each fault, and none where there is none."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "docs"))

from site_faults import faults  # noqa: E402

HEAD = '<head><meta name="viewport" content="width=device-width"></head>'


@pytest.fixture
def site(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other.html").write_text(f'{HEAD}<h1 id="here">x</h1>', encoding="utf-8")
    return tmp_path


def found(site, body, head=HEAD):
    (site / "index.html").write_text(head + body, encoding="utf-8")
    return faults(site)


@pytest.mark.parametrize(
    "body",
    [
        '<a href="sub/other.html#here">x</a><a href="sub/other.html">x</a>',
        '<a id="top" href="#top">x</a><a href="https://example.org/#no">x</a>',
        '<img src="sub/other.html" alt="a curve" width="900">',
        '<table style="width: 900px"></table><svg width="900"><rect width="800"/></svg>',
        '<svg role="img" aria-label="boxes"></svg><div style="max-width: 900px"></div>',
    ],
)
def test_what_is_right_is_no_fault(site, body):
    assert found(site, body) == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('<a href="gone.html">x</a>', "gone.html leads nowhere"),
        ('<a href="sub/other.html#gone">x</a>', "#gone leads nowhere"),
        ('<a href="#gone">x</a>', "#gone leads nowhere"),
        ('<img src="sub/other.html" alt=" ">', "no alternative text"),
        ('<svg role="img"></svg>', "no aria-label"),
        ('<svg></svg><div style="width: 900px"></div>', "900 pixels wide"),
        ('<div width="391"></div>', "391 pixels wide"),
        ('<script src="https://example.org/x.js"></script>', "needs a network"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "needs a network"),
    ],
)
def test_a_fault_is_found(site, body, words):
    (line,) = found(site, body)
    assert line.startswith("index.html: ") and words in line


def test_a_page_without_a_viewport_is_found(site):
    assert found(site, "", head="") == ["index.html: it has no viewport, so a phone shows it small"]


def test_a_folder_without_pages_is_no_site(tmp_path):
    with pytest.raises(FileNotFoundError, match="there are no pages"):
        faults(tmp_path)
