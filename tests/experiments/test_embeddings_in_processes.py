"""The job metric_learning in two processes, and one that is killed and goes on."""

import json
import os
import signal

import numpy as np
import pytest
from PIL import Image
from runs_in_processes import fingerprints, finished, reports, same, start, wait_for

SIDE, PEOPLE, EACH, STEPS = 4, 20, 4, 400
# Each anchor draws its negatives by its place in the global batch.
FLAGS = (
    "--model=mlp", "--option=features=[8]", "--embedding=4", "--batch_size=8", "--pictures=2",
    "--ways=3", "--augment=none", "--loss=triplet", "--mining=distance_weighted", "--distance=l2",
    "--schedule=constant", "--warmup_steps=0", "--learning_rate=1e-3", f"--steps={STEPS}",
    "--eval_every=200", "--log_every=20", "--checkpoint_every=20",
)  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A folder for each of some persons."""
    root, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    for person in range(PEOPLE):
        (root / f"person{person}").mkdir()
        face = rng.integers(60, 190, (SIDE, SIDE))
        for number in range(EACH):
            pixels = (face + rng.normal(0, 20, (SIDE, SIDE))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"person{person}" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def flags(people):
    return (*FLAGS, f"--data_path={people}")


@pytest.fixture(scope="module")
def whole(flags, tmp_path_factory):
    """The folder of a run of one process with two devices, which nobody disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    finished("metric_learning", *flags, f"--workdir={workdir}", devices=2)
    return workdir


def summary(workdir):
    return json.loads((workdir / "summary.json").read_text(encoding="utf-8"))


def test_two_processes_find_what_one_finds(whole, flags, tmp_path):
    here = (f"--workdir={tmp_path}", "--mesh=fsdp=2")
    finished("metric_learning", *flags, *here, processes=2, devices=1)
    same(reports(tmp_path), reports(whole))
    found, expected = summary(tmp_path), summary(whole)
    assert found["metrics"] == pytest.approx(expected["metrics"], rel=1e-4, abs=1e-5)
    # The thresholds of the gallery and the figures of pixels are those of a run in one process.
    assert {*expected["thresholds"]} == {"0.1"} and "pixels_eer" in expected["metrics"]
    assert found["thresholds"] == pytest.approx(expected["thresholds"], rel=1e-4)
    assert found["thresholds_found_on"] == expected["thresholds_found_on"] == "test"


def test_a_killed_run_goes_on_bit_for_bit(whole, flags, tmp_path):
    flags = (*flags, f"--workdir={tmp_path}")
    process = start("metric_learning", *flags, devices=2)
    wait_for(tmp_path, 60)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL  # and not the end of the run
    assert not (tmp_path / "summary.json").exists()
    finished("metric_learning", *flags, devices=2)
    assert fingerprints(tmp_path, STEPS) == fingerprints(whole, STEPS)
    assert reports(tmp_path) == reports(whole)
    found, expected = summary(tmp_path), summary(whole)
    for name in ("metrics", "thresholds"):
        assert found[name] == expected[name]
