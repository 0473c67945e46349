"""Results of finished runs are recorded in the checkout, those of recipes and defaults alone."""

import hashlib
import json

import pytest
from in_process import run_here

from dlcore.errors import InputError
from dlcore.launch import command, flags, jobs, records

JOB = "image_classification"


@pytest.fixture
def results(monkeypatch, tmp_path):
    """The folder in whose place the tests record."""
    monkeypatch.setattr(jobs, "results", lambda job: tmp_path / "results" / job)
    return tmp_path / "results"


@pytest.fixture
def recipes(monkeypatch, tmp_path):
    """A folder of recipes with a tiny one."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    text = f"""# A net of one layer.
# scripts/run {JOB} --recipe=tiny
# Expected: test accuracy 0.9 in 1 s on two CPU cores,
# beside others
--model=mlp
--option=features=[4]
--steps=2
"""
    (folder / "tiny.flags").write_text(text, encoding="utf-8")
    monkeypatch.setattr(jobs, "recipes", lambda job: folder)
    return folder


@pytest.fixture
def run(capfd, data_dir):
    def run(*more):
        return run_here(capfd, JOB, ["--recipe=tiny", f"--data_dir={data_dir}", *more])

    return run


def contents(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def read(results):
    return json.loads((results / JOB / "tiny.json").read_text(encoding="utf-8"))


def test_a_run_is_recorded_by_its_seed_and_stays_as_it_is(run, recipes, results, tmp_path):
    first = run(f"--workdir={tmp_path / 'a'}", "--record")
    assert first.returncode == 0, first.stderr
    assert run(f"--workdir={tmp_path / 'b'}", "--seed=1", "--log_every=1").returncode == 0
    before = contents(tmp_path / "b")
    assert records.record(tmp_path / "b") == [results / JOB / "tiny.json"]
    assert contents(tmp_path / "b") == before
    found = read(results)
    assert found["command"] == f"{JOB} --recipe=tiny" and [*found["runs"]] == ["0", "1"]
    for seed, folder in (("0", "a"), ("1", "b")):
        summary = json.loads((tmp_path / folder / "summary.json").read_text(encoding="utf-8"))
        entry = found["runs"][seed]
        assert entry["command"] == f"{JOB} --recipe=tiny --seed={seed}"
        assert entry["metrics"] == summary["metrics"] and entry["seconds"] == summary["seconds"]
        assert entry["versions"].keys() >= {"python", "jax", "dlcore"} and entry["date"] >= "2020"
        assert entry["cores"] >= 1 and entry["processor"] and entry["load_average"] >= 0
    assert found["runs"]["0"]["result"] in first.stdout
    # The same seed takes the place of its entry; the others stay.
    summary = tmp_path / "b" / "summary.json"
    text = summary.read_text(encoding="utf-8").replace('"seconds":', '"seconds": 7, "was":')
    summary.write_text(text, encoding="utf-8")
    records.record(tmp_path / "b")
    again = read(results)
    assert again["runs"]["1"]["seconds"] == 7 and again["runs"]["0"] == found["runs"]["0"]
    shown = records.printed(again)
    assert shown.startswith(f"seed 0: {found['runs']['0']['result']} (") and "load" in shown


def test_what_is_no_finished_run_of_a_recipe_is_refused(run, recipes, results, tmp_path):
    with pytest.raises(InputError, match="no run in"):
        records.record(tmp_path)
    # Before the run is made, so that no time is lost.
    refused = run(f"--workdir={tmp_path / 'a'}", "--batch_size=7", "--record")
    assert refused.returncode == 2 and not (tmp_path / "a").exists()
    assert "--recipe=tiny in --batch_size (7 instead of 128)" in refused.stderr
    assert run(f"--workdir={tmp_path / 'b'}", "--smoke", "--record").returncode == 2
    assert run(f"--workdir={tmp_path / 'c'}").returncode == 0
    summary = tmp_path / "c" / "summary.json"
    whole = json.loads(summary.read_text(encoding="utf-8"))
    whole.pop("load_average")
    summary.write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(InputError, match="does not say load average"):
        records.record(tmp_path / "c")
    summary.unlink()
    with pytest.raises(InputError, match="has not finished"):
        records.record(tmp_path / "c")
    assert not results.exists()


def test_the_time_of_a_run_that_was_interrupted_is_not_known(run, recipes, results, tmp_path):
    run(f"--workdir={tmp_path / 'a'}", "--record")
    text = (recipes / "tiny.flags").read_text(encoding="utf-8")
    (recipes / "tiny.flags").write_text(text.replace("steps=2", "steps=3"), encoding="utf-8")
    assert run(f"--workdir={tmp_path / 'a'}", "--record").returncode == 0
    entry = read(results)["runs"]["0"]
    assert entry["seconds"] is None and "at step 3" in entry["result"]


def test_an_installed_package_has_nowhere_to_record(monkeypatch, recipes):
    monkeypatch.setattr(jobs, "in_checkout", lambda: False)
    config, _ = flags.parse(jobs.config_class(JOB), ["--recipe=tiny"], recipes=recipes)
    with pytest.raises(InputError, match="in a checkout of dlcore"):
        records.require_recordable(JOB, config)


def test_the_command_records(run, recipes, results, tmp_path, capfd):
    run(f"--workdir={tmp_path / 'a'}")
    with pytest.raises(SystemExit) as ended:
        command.command(["record", str(tmp_path / "a")])
    assert not ended.value.code and "tiny.json" in capfd.readouterr().out
    with pytest.raises(SystemExit) as ended:
        command.command(["record", "--seed=1"])
    assert ended.value.code == 2 and "unknown flag --seed=1" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("job", "recipe"), [(job, recipe) for job in jobs.names() for recipe in records.names(job)]
)
def test_the_command_of_each_recipe_is_told_from_all_others(job, recipe):
    config = records.config_of(job, recipe)
    assert records.recipe_of(job, config) == recipe
    assert (records.expected(job, recipe) is None) == (recipe == records.DEFAULT)
    assert len(records.about(job, recipe)) > 10


def test_the_comment_of_a_recipe_is_read(recipes):
    assert records.about(JOB, "tiny") == "A net of one layer."
    assert records.command(JOB, "tiny") == f"{JOB} --recipe=tiny"
    expected = "test accuracy 0.9 in 1 s on two CPU cores, beside others"
    assert records.expected(JOB, "tiny") == expected
    (recipes / "tiny.flags").write_text("--steps=2\n", encoding="utf-8")
    with pytest.raises(InputError, match="lacks the comment"):
        records.command(JOB, "tiny")


SHOWN = [(job, name) for job in jobs.names() for name in records.shown(job)]


@pytest.mark.parametrize(("job", "name"), SHOWN)
def test_a_command_of_the_glossary_has_a_record_of_its_own(job, name):
    given = records.command(job, name)
    assert records.recipe_of(job, records.config_of(job, name)) in (name, *records.names(job))
    assert given.startswith(f"{job} --") and name not in records.names(job)


def test_a_run_of_the_glossary_is_found_by_its_command(results, monkeypatch):
    monkeypatch.setattr(jobs, "results", lambda job: results.parent / job)
    given = "autoencoder --model=linear"
    assert records.of_command(given) is None
    (results.parent / "autoencoder").mkdir(parents=True)
    path = results.parent / "autoencoder" / "model_linear.json"
    path.write_text(json.dumps({"command": given, "runs": {}}), encoding="utf-8")
    assert records.of_command(f"{given} --report")["command"] == given
    assert records.of_command("autoencoder --model=dense") is None
