"""The pages that the code writes: entries that the search finds, and none of an earlier build."""

import doctest
import pathlib
import sys

import pytest

from dlcore import glossary

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "docs"))

import generate  # noqa: E402


def test_the_examples_of_the_generator():
    assert doctest.testmod(generate).failed == 0


@pytest.mark.parametrize("term", glossary.terms(), ids=lambda term: term.name)
def test_the_search_puts_a_term_first_by_each_of_its_names(term):
    line = next(line for line in generate.entry(term).splitlines() if "{index}" in line)
    names = line.removeprefix("```{index} ").split(", ")
    assert names == [f"! {name.replace(',', ' ')}" for name in (term.name, *term.aliases)]
    assert not any(character in line for character in ";:|")


def test_a_build_deletes_pages_that_are_no_more_and_leaves_those_that_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(generate.pictures, "draw_all", lambda folder: None)
    monkeypatch.setattr(generate.results, "page", lambda: "# Results\n")
    monkeypatch.setattr(generate.reference, "pages", lambda: {"api/new.md": "# new\n"})
    (tmp_path / "api").mkdir()
    (tmp_path / "results").mkdir()
    for name in ("api/old.md", "results/index.md", "own.md"):
        (tmp_path / name).write_text("# Results\n", encoding="utf-8")
    before = (tmp_path / "results" / "index.md").stat().st_mtime_ns
    generate.pages(tmp_path)
    assert {path.name for path in (tmp_path / "api").iterdir()} == {"new.md"}
    assert (tmp_path / "own.md").exists() and (tmp_path / "glossary" / "index.md").exists()
    assert (tmp_path / "results" / "index.md").stat().st_mtime_ns == before
