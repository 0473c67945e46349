"""The learning rate of a run: reduced at a plateau, changed when a run continues, looked for."""

import json

import pytest
from outcomes import assert_fails

from dlcore.launch.config import Config

# Steps that change nothing, so that every evaluation after the first is one of a plateau.
STILL = ["--optimizer=sgd", "--schedule=constant", "--learning_rate=1e-30", "--validation=0.1"]


def rates(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["learning_rate"] for line in lines if line["split"] == "train"]


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
    # The same again has nothing to say, and another factor is another run.
    again = run(*STILL, *flags, "--plateau_factor=0.5", "--steps=8", "--learning_rate=2e-30")
    assert again.returncode == 0 and "learning rate at step" not in again.stderr
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
