"""Every recipe is a flag file that its job understands, and says what to expect."""

import re

import pytest
from in_process import run_here

from dlcore.launch import flags, jobs

RECIPES = sorted(jobs.folder().glob("recipes/*/*.flags"))
# The quick one of all; the jobs' own tests make the smoke test of their defaults.
QUICK = {"digits_mlp"}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[] if path.stem in QUICK else pytest.mark.slow)
        for path in RECIPES
        if path.parent.name != "comparison"
    ],
    ids=lambda path: path.stem,
)
def test_a_recipe_passes_the_smoke_test(capfd, path, data_dir, tmp_path):
    job = path.parent.name
    flags = [f"--recipe={path.stem}", "--smoke", f"--workdir={tmp_path}"]
    # Jobs of pictures read no prepared data.
    if "data_dir" in jobs.task_class(job).parts()[0].__dataclass_fields__:
        flags.append(f"--data_dir={data_dir}")
    process = run_here(capfd, job, flags)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_options_of_a_recipe_are_those_of_its_job(path):
    name = path.parent.name
    _, given = flags.parse(
        jobs.config_class(name), [f"--recipe={path.stem}"], recipes=jobs.recipes(name)
    )
    assert len(given) > 1


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_how_to_run_it_and_what_to_expect(path):
    text = path.read_text(encoding="utf-8")
    assert f"scripts/run {path.parent.name} --recipe={path.stem}" in text
    assert re.search(r"# Expected: test \w+ [\d.]+.* in \d+ s on two CPU cores", text)
