"""A job in two processes: the same results, and nothing lost when one of them dies."""

import json
import os
import signal

import pytest
import runs_in_processes
from in_process import run_here
from runs_in_processes import fingerprints, reports, same, started, wait_for, worker

FLAGS = (
    "--model=mlp", "--batch_size=32", "--schedule=constant", "--log_every=5", "--eval_every=10",
    "--checkpoint_every=5",
)  # fmt: skip


def command(workdir, *flags, processes=2):
    """The job in so many processes of two devices each."""
    return runs_in_processes.command(
        "image_classification", *FLAGS, f"--workdir={workdir}", *flags, processes=processes
    )


def finished(workdir, *flags, processes=2):
    return runs_in_processes.finished(
        "image_classification", *FLAGS, f"--workdir={workdir}", *flags, processes=processes
    )


def test_two_processes_do_what_one_does_and_one_goes_on(capfd, tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    output = finished(two, "--steps=10", "--mesh=data=2,fsdp=2")
    assert output.count("image_classification: test") == 1
    finished(two, "--steps=20", processes=1)
    whole = run_here(capfd, "image_classification", [*FLAGS, "--steps=20", f"--workdir={one}"])
    assert whole.returncode == 0, whole.stderr
    same(reports(two), reports(one))
    summary = json.loads((two / "summary.json").read_text(encoding="utf-8"))
    assert summary["step"] == 20 and not (two / "report").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1], ids=["coordinator", "worker"])
def test_a_killed_process_ends_all_and_the_supervisor_goes_on(tmp_path, number):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = ("--steps=200", "--layout=mesh")
    finished(whole, *flags)
    process = started(["scripts/launch/supervise", "--pause=0.1", *command(killed, *flags)], 2)
    wait_for(killed, 20)
    os.kill(worker(killed, number), signal.SIGKILL)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    assert "continuing" in errors
    assert fingerprints(killed, 200) == fingerprints(whole, 200)
    assert reports(killed) == reports(whole)


@pytest.mark.slow
def test_sigterm_to_one_process_has_all_save_the_same_step(tmp_path):
    workdir = tmp_path / "run"
    process = started(command(workdir, "--steps=100000", "--layout=pmap"), 2)
    wait_for(workdir, 10)
    os.kill(worker(workdir, 1), signal.SIGTERM)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert "SIGTERM: saved step" in errors
    saved = max(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*"))
    assert f"saved step {saved} " in errors
