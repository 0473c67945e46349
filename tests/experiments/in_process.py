"""Runs jobs in the process of the test, which has imported them once."""

import subprocess

import jax
import pytest

from dlcore.launch import jobs
from dlcore.launch.entry import main


def run_here(capfd, job, arguments):
    """Runs a job in this process; gives what `subprocess.run` would give."""
    capfd.readouterr()
    command = [job, *map(str, arguments)]
    # As users have it: in bfloat16 layers of Flax mix types.
    with jax.numpy_dtype_promotion("standard"), pytest.raises(SystemExit) as ended:
        main(jobs.task_class(job), command[1:])
    out, errors = capfd.readouterr()
    return subprocess.CompletedProcess(command, ended.value.code or 0, out, errors)
