"""Benchmarks write what they print as a page of the site."""

import contextlib
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "scripts" / "bench"))

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
        "# `core.py`\n\n`scripts/bench/core.py loop '--jobs=a b'`\n\nA machine.\n\n"
        "## loop\n\nSteps per second.\n"
    )


def test_a_page_says_what_it_was_measured_with():
    assert "load average" in provenance() and "jax 0." in provenance()
