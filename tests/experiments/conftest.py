"""Runs experiments as a user does: as a process of their own."""

import os
import pathlib
import subprocess
import sys

import pytest

LIMIT = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory, worker_id):
    """One folder of prepared data sets for all tests of a worker."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def command(data_dir):
    """The start of the command line of the image classification job on tiny settings."""
    return [
        sys.executable, "-m", "experiments.image_classification",
        f"--data_dir={data_dir}", "--model=mlp", "--batch_size=32",
    ]  # fmt: skip


def environment(devices=1):
    return os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}


@pytest.fixture
def run(command):
    """Runs the job with further flags to its end; gives the finished process."""

    def run(*flags, devices=1, largest_file=None):
        # The nearest thing to a full disk that needs no disk of its own.
        limit = [] if largest_file is None else [sys.executable, "-c", LIMIT, str(largest_file)]
        return subprocess.run(
            [*limit, *command, *map(str, flags)],
            cwd=ROOT, env=environment(devices), capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    return run


@pytest.fixture
def start(command):
    """Starts the job with further flags; gives the running process, killed at the test's end."""
    started = []

    def start(*flags, devices=1):
        process = subprocess.Popen(
            [*command, *map(str, flags)],
            cwd=ROOT, env=environment(devices), stderr=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
