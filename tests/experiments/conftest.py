"""Runs jobs as a user does: in this process where that is enough, else in one of their own."""

import os
import pathlib
import subprocess
import sys

import pytest
from in_process import run_here

LIMIT = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory, worker_id):
    """One folder of prepared data sets for all tests, those of other workers included."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "data"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def job():
    """The job that `run` and `start` run."""
    return "image_classification"


@pytest.fixture
def common_flags(data_dir):
    """The flags that every run of a test module has."""
    return [f"--data_dir={data_dir}", "--model=mlp", "--batch_size=32"]


def environment(devices=1):
    return os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}


@pytest.fixture
def run(capfd, job, common_flags):
    """Runs the job with further flags to its end, in this process unless something asks for more.

    The result has `returncode`, `stdout` and `stderr`.
    """

    def run(*more, devices=None, largest_file=None):
        if devices is None and largest_file is None:
            return run_here(capfd, job, [*common_flags, *more])
        # The nearest thing to a full disk that needs no disk of its own.
        limit = [] if largest_file is None else [sys.executable, "-c", LIMIT, str(largest_file)]
        return subprocess.run(
            [*limit, sys.executable, "-m", f"experiments.{job}", *map(str, [*common_flags, *more])],
            cwd=ROOT,
            env=environment(devices or 1),
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def start(job, common_flags):
    """Starts the job with further flags; gives the running process, killed at the test's end."""
    started = []

    def start(*more, devices=1):
        process = subprocess.Popen(
            [sys.executable, "-m", f"experiments.{job}", *map(str, [*common_flags, *more])],
            cwd=ROOT,
            env=environment(devices),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
