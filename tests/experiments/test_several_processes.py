"""A job in two processes: the same results, and nothing lost when one of them dies."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FLAGS = (
    "--model=lenet5", "--batch_size=32", "--schedule=constant", "--log_every=5", "--eval_every=10",
    "--checkpoint_every=5",
)  # fmt: skip


def command(workdir, *flags, processes=2):
    """The job in so many processes of two devices each."""
    start = [sys.executable, "-m", "experiments.image_classification"]
    if processes > 1:
        start = ["scripts/launch/local.sh", str(processes), "image_classification"]
    return [*start, *FLAGS, f"--workdir={workdir}", *flags]


def start(command):
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


def finished(*arguments, **how):
    process = start(command(*arguments, **how))
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


def reports(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def same(left, right):
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        assert a.pop("split") == b.pop("split")
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)


def fingerprints(workdir, step):
    run = workdir / "checkpoints" / str(step) / "run" / "metadata"
    return json.loads(run.read_text())["fingerprints"]


def test_two_processes_do_what_one_does_and_one_goes_on(tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    output = finished(two, "--steps=10", "--mesh=data=2,fsdp=2")
    assert output.count("image_classification: test") == 1
    finished(two, "--steps=20", processes=1)
    finished(one, "--steps=20", processes=1)
    same(reports(two), reports(one))
    summary = json.loads((two / "summary.json").read_text())
    assert summary["step"] == 20 and not (two / "report").exists()


def wait_for(workdir, step):
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, IndexError):
            if reports(workdir)[-1]["step"] >= step:
                return
        time.sleep(0.02)
    raise AssertionError(f"the run did not reach step {step}")


def worker(workdir, number):
    """The process of that number."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_text().split("\0")
            if {f"--workdir={workdir}", f"--process_id={number}"} <= set(words):
                return int(folder.name)
    raise AssertionError("the process is not there")


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1], ids=["coordinator", "worker"])
def test_a_killed_process_ends_all_and_the_supervisor_goes_on(tmp_path, number):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = ("--steps=200", "--layout=mesh")
    finished(whole, *flags)
    process = start(["scripts/launch/supervise", "--pause=0.1", *command(killed, *flags)])
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
    process = start(command(workdir, "--steps=100000", "--layout=pmap"))
    wait_for(workdir, 10)
    os.kill(worker(workdir, 1), signal.SIGTERM)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert "SIGTERM: saved step" in errors
    saved = max(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*"))
    assert f"saved step {saved} " in errors
