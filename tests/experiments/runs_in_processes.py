"""Runs of jobs in one or several processes of their own, and what they leave."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def command(job, *flags, processes):
    """The job in so many processes."""
    if processes > 1:
        return ["scripts/launch/local.sh", str(processes), job, *flags]
    return [sys.executable, "-m", f"experiments.{job}", *flags]


def started(command, devices):
    """The process of a command, with so many devices in each process of a run."""
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


def start(job, *flags, processes=1, devices=2):
    """The process of a job, or the one that starts its processes."""
    return started(command(job, *flags, processes=processes), devices)


def finished(job, *flags, processes=1, devices=2):
    """The standard output of a job at its end, with status 0."""
    process = start(job, *flags, processes=processes, devices=devices)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


def reports(workdir):
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def same(left, right):
    """Asserts that the reports of two runs are equal up to rounding."""
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        assert a.pop("split") == b.pop("split")
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)


def fingerprints(workdir, step):
    run = workdir / "checkpoints" / str(step) / "run" / "metadata"
    return json.loads(run.read_text(encoding="utf-8"))["fingerprints"]


def wait_for(workdir, step):
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, IndexError):
            if reports(workdir)[-1]["step"] >= step:
                return
        time.sleep(0.02)
    raise AssertionError(f"the run did not reach step {step}")


def worker(workdir, number):
    """The process of that number in a run of several."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_text(encoding="utf-8").split("\0")
            if {f"--workdir={workdir}", f"--process_id={number}"} <= set(words):
                return int(folder.name)
    raise AssertionError("the process is not there")
