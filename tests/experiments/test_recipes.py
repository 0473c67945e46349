"""Every recipe is a flag file that its job understands, and says what to expect."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RECIPES = sorted(ROOT.glob("experiments/recipes/*/*.flags"))
JOBS = {path.parent.name for path in RECIPES} - {"comparison"}
# Comparisons are tested elsewhere.
FIRST = [min(path for path in RECIPES if path.parent.name == job) for job in JOBS]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if path in FIRST else pytest.mark.slow) for path in RECIPES],
    ids=lambda path: path.stem,
)
def test_a_recipe_passes_the_smoke_test(path, data_dir, tmp_path):
    command = [sys.executable, "-m", f"experiments.{path.parent.name}", f"--flagfile={path}"]
    process = subprocess.run(
        [*command, "--smoke", f"--data_dir={data_dir}", f"--workdir={tmp_path}"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_how_to_run_it_and_what_to_expect(path):
    text = path.read_text()
    name = path.relative_to(ROOT)
    assert f"scripts/run {path.parent.name} --flagfile={name}" in text
    assert re.search(r"# Expected: test \w+ [\d.]+.* in \d+ s on two CPU cores", text)
