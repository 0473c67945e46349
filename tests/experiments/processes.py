"""Processes for fixtures that many tests share, which cannot use those of a single test."""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def finished(command, **how):
    """The process of a command at its end, with status 0, on one device."""
    process = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}, **how,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process
