"""The learning rate of a run: reduced at a plateau, changed when a run continues, looked for."""

import json
import types

import pytest
from in_process import run_here
from outcomes import assert_fails

from dlcore.launch import running
from dlcore.launch import workdir as folders
from dlcore.launch.config import Config

# Steps that change nothing, so that every evaluation after the first is one of a plateau.
STILL = ["--optimizer=sgd", "--schedule=constant", "--learning_rate=1e-30", "--validation=0.1"]


def rates(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["learning_rate"] for line in lines if line["split"] == "train"]


@pytest.mark.slow
def test_a_plateau_reduces_the_rate_and_a_continued_run_may_have_another(run, tmp_path):
    flags = ["--eval_every=2", "--log_every=1", f"--workdir={tmp_path}", "--plateau_patience=1"]
    process = run(*STILL, *flags, "--plateau_factor=0.5", "--steps=5")
    assert process.returncode == 0, process.stderr
    said = "step 4: no lower validation loss in 1 evaluations; the learning rate is multiplied by"
    assert said in process.stderr
    more = run(*STILL, *flags, "--plateau_factor=0.5", "--steps=7", "--learning_rate=2e-30")
    assert more.returncode == 0, more.stderr
    said = "learning rate at step 5: 5e-31 before, 1e-30 now (learning_rate: 1e-30 then, 2e-30 now"
    assert said in more.stderr
    expected = [1e-30] * 4 + [0.5e-30, 1e-30, 0.5e-30]
    assert rates(tmp_path) == pytest.approx(expected, rel=1e-5)
    # Another factor is another run.
    assert_fails(run(*STILL, *flags, "--steps=9"), "holds another run", "plateau_factor: 0.5 then")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--plateau_patience=2", "--schedule=cosine"], "--schedule=cosine does not read"),
        (["--plateau_factor=0.5"], "--plateau_factor is for --plateau_patience"),
        (["--plateau_patience=2", "--eval_every=2"], "without --validation"),
        (
            ["--plateau_patience=2", "--validation=0.1", "--eval_every=0"],
            "give the steps by --eval_every",
        ),
        (["--l1_ball=1", "--l2_ball=1"], "--l1_ball and --l2_ball are two constraints"),
        (["--l1_ball=0"], "radius 0.0 of a ball is not positive"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(run, tmp_path, flags, message):
    constant = [] if "--schedule=cosine" in flags else ["--schedule=constant"]
    assert_fails(run("--steps=2", *constant, *flags, f"--workdir={tmp_path}"), message)


def test_hyperparameters_of_a_run_name_its_schedule():
    found = Config(schedule="wsd", decay_share=0.5, steps=7).hyperparameters()
    assert found["schedule"] == "wsd" and found["decay_share"] == 0.5 and found["steps"] == 7
    assert not {"boundary", "workdir", "eval_every"} & found.keys()


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_rate_is_found_and_nothing_but_the_picture_is_left(run, tmp_path, monkeypatch, ending):
    monkeypatch.chdir(tmp_path)
    picture = tmp_path / f"rates.{ending}"
    flags = ["--find_steps=60"] if ending == "png" else ["--smoke"]
    process = run(*flags, "--optimizer=adam", f"--find_rate={picture}", f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    if ending == "png":
        rate = float(process.stdout.rpartition("--learning_rate=")[2])
        assert 1e-5 < rate < 1e-1
    assert "is lowest at" in process.stdout or "lowers the loss" in process.stdout
    assert [path.name for path in tmp_path.iterdir()] == [picture.name]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--find_rate=rates.jpg"], "--find_rate=rates.jpg is not a picture"),
        (["--find_rate=nowhere/rates.png"], "there is no folder nowhere"),
        (["--find_rate=rates.png", "--check"], "--check does not read --find_rate"),
        (["--find_rate=rates.png", "--plan"], "--plan does not read --find_rate"),
        (["--find_steps=20"], "--find_steps is for --find_rate"),
        (["--find_rate=rates.png", "--find_steps=1"], "--find_steps=1"),
    ],
)
def test_a_search_for_a_rate_that_makes_no_sense_is_one_clear_line(
    run, tmp_path, monkeypatch, flags, message
):
    monkeypatch.chdir(tmp_path)
    assert_fails(run(*flags), message)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"schedule": "linear"}, {"schedule": "linear"}, []),
        ({"schedule": "constant"}, {"schedule": "constant", "steps": 300}, []),
        (
            {"schedule": "linear"},
            {"schedule": "linear", "steps": 200},
            ["learning rate at step 50: 0.0005 before, 0.00075 now (steps: 100 then, 200 now)"],
        ),
        (
            {"schedule": "step", "boundary": (70,)},
            {"schedule": "step", "boundary": (80,), "learning_rate": 2e-3},
            [
                "learning rate at step 50: 0.001 before, 0.002 now (boundary: [70] then, [80] now; "
                "learning_rate: 0.001 then, 0.002 now)"
            ],
        ),
    ],
)
def test_the_rates_are_named_where_flags_change_them(tmp_path, monkeypatch, before, now, expected):
    folders.record(tmp_path, "job", Config(steps=100, **before))
    task = types.SimpleNamespace(config=Config(**{"steps": 100, **now}), workdir=tmp_path)
    said = []
    monkeypatch.setattr(running, "say", said.append)
    running._say_changed_rate(task, 50, 1.0)
    assert said == expected


@pytest.mark.parametrize("model", ["skip_gram", "glove"])
def test_jobs_with_steps_of_their_own_find_a_rate(capfd, tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    text = " ".join(f"w{number * number % 23}" for number in range(4000))
    (tmp_path / "text.txt").write_text(text)
    flags = ["--data_path=text.txt", "--min_count=1", "--features=8", "--find_steps=10"]
    flags += ["--batch_size=256", "--validation=0"] if model == "skip_gram" else []
    process = run_here(capfd, "word_vectors", [f"--model={model}", *flags, "--find_rate=rates.png"])
    assert "word_vectors:" in process.stdout, process.stderr
    assert (tmp_path / "rates.png").exists()
