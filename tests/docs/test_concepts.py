"""The examples of the pages about concepts print what the pages say."""

import doctest
import pathlib
import re

import pytest

PAGES = sorted((pathlib.Path(__file__).parents[2] / "docs" / "concepts").glob("*.md"))


def examples(text):
    """Returns the Python of a page: its fenced blocks, one after another."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if ">>>" in page.read_text(encoding="utf-8")],
    ids=lambda p: p.stem,
)
def test_the_examples_of_a_page_print_what_it_says(page):
    text = examples(page.read_text(encoding="utf-8"))
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert test.examples
    lines = []
    doctest.DocTestRunner().run(test, out=lines.append)
    assert not lines, "".join(lines)
