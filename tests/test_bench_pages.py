"""Benchmarks write what they print as a page of the site, and import what there is."""

import ast
import contextlib
import pathlib
import sys

import pytest

BENCH = pathlib.Path(__file__).parents[1] / "scripts" / "bench"
sys.path.insert(0, str(BENCH))

from contenders import Copied, page, provenance  # noqa: E402


def test_what_is_printed_is_shown_and_kept(capsys):
    copy = Copied(sys.stdout)
    with contextlib.redirect_stdout(copy):
        print("  ours  1.00", flush=True)
    assert copy.getvalue() == capsys.readouterr().out == "  ours  1.00\n"


def test_a_page_names_the_command_and_the_machine(monkeypatch, tmp_path):
    path = tmp_path / "new" / "core.md"
    monkeypatch.setattr(
        sys, "argv", ["/x/scripts/bench/core.py", "loop", f"--write={path}", "--jobs=a b"]
    )
    page(path, "A machine.", {"loop": "Steps per second.\n"})
    assert path.read_text(encoding="utf-8") == (
        "# `core.py loop`\n\n`scripts/bench/core.py loop '--jobs=a b'`\n\nA machine.\n\n"
        "## loop\n\nSteps per second.\n"
    )


def test_a_page_says_what_it_was_measured_with():
    assert "load average" in provenance() and "jax 0." in provenance()


@pytest.mark.parametrize("path", sorted(BENCH.glob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_imports_of_another_is_there(path):
    """Read from the source, since what the peers import is not installed here."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (BENCH / f"{node.module}.py").exists():
            there = names(BENCH / f"{node.module}.py")
            assert {alias.name for alias in node.names} <= there, node.module


def names(path):
    """The names that the top level of a module binds."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found.add(other or name)
    return found
