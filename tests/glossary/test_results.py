"""All measured figures of the site come from what runs have recorded."""

import json
import pathlib
import re
import sys

import pytest

from dlcore import glossary
from dlcore.launch import jobs, records

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "docs"))

import generate  # noqa: E402
import results  # noqa: E402

RECORDED = sorted(path for path in jobs.folder().glob("results/*/*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_record_is_what_its_recipe_recorded(path):
    job, recipe = path.parent.name, path.stem
    found = records.read(job, recipe)
    assert found["command"] == records.command(job, recipe) and found["runs"]
    assert "/" not in found["command"]
    for seed, run in found["runs"].items():
        assert run["command"] in (found["command"], f"{found['command']} --seed={seed}")
        assert re.fullmatch(r"[0-9a-f]{40}", run["git_commit"]), "the code was changed since"
        assert run["versions"]["dlcore"] and run["devices"] and run["load_average"] >= 0
        for name, value in run["metrics"].items():
            if job != "comparison":
                assert f"{name} {value:.4f}" in run["result"]
        if job != "comparison" and run["seconds"] is not None:
            assert re.search(rf"{run['seconds']:.0f}|{run['seconds'] - 1:.0f}", run["result"])


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """A record in the place of the checkout's."""
    monkeypatch.setattr(jobs, "results", lambda job: tmp_path / job)
    folder = tmp_path / "image_classification"
    folder.mkdir()
    run = {
        "result": "test accuracy 0.8125, loss 0.5 at step 3, 61,706 parameters, 7.0 s",
        "metrics": {"accuracy": 0.8125, "loss": 0.5},
        "seconds": 7.0,
        "seconds_to_first_step": 2.0,
        "processor_seconds": 9.0,
        "devices": ["cpu:cpu"],
        "processor": "Some | processor",
        "cores": 2,
        "load_average": 1.5,
        "versions": {"dlcore": "0.2.0", "jax": "0.10.2", "python": "3.11.7"},
        "date": "2026-01-02",
    }
    second = run | {"metrics": {"accuracy": 0.9375, "loss": 0.25}, "seconds": None}
    text = {"command": "image_classification", "runs": {"0": run, "1": second}}
    (folder / "default.json").write_text(json.dumps(text), encoding="utf-8")
    return tmp_path


def row(page, job, recipe):
    part = page.split(f"## {job}\n")[1].split("\n## ")[0]
    return next(line for line in part.splitlines() if line.startswith(f"| `{recipe}`"))


def test_the_page_of_results_shows_mean_spread_time_and_place(recorded):
    page = results.page()
    shown = row(page, "image_classification", "default")
    assert "accuracy **0.8750 \u00b1 0.0884**" in shown and "seeds 0, 1" in shown
    for part in ("7 s", "9 s of the processor", "first step after 2 s", "load average 1.5"):
        assert part in shown
    assert "jax 0.10.2" in shown and "2026-01-02" in shown and "Some \\| processor" in shown
    assert "0.95 % test error on MNIST" in shown and "not reachable here" in shown
    # Without a record the recipe's own comment is shown, and said to be that.
    other = row(page, "image_classification", "digits_resnet20")
    assert "99.4 %" in other and "measured earlier, not recorded" in other
    assert "not recorded" in row(page, "gan", "default")
    columns = {line.replace("\\|", "").count("|") for line in page.splitlines() if line[:1] == "|"}
    assert columns == {6}


def test_an_entry_shows_what_its_command_printed(recorded):
    entry = generate.entry(glossary.find("convolution"))
    assert "seed 0: test accuracy 0.8125, loss 0.5 at step 3" in " ".join(entry.split())
    assert "load average 1.5" in " ".join(entry.split())
    assert "seed 0" not in generate.entry(glossary.find("CBOW"))
    # --report changes no result, other flags do.
    assert records.of_command("image_classification --report")
    assert records.of_command("image_classification --steps=3") is None


def test_every_published_figure_is_that_of_a_recipe_and_has_a_source():
    for job, recipes in results.published().items():
        for recipe, known in recipes.items():
            assert recipe in records.names(job), f"{job}.{recipe}"
            assert known.keys() - {"same_data"} == {"figure", "source"}
