"""The provenance of a result: packages, code, devices and the load of the machine."""

import contextlib
import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

from dlcore import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def provenance() -> dict[str, Any]:
    """Returns the provenance of a result, as JSON.

    Returns:
        "versions" of Python and the packages, "git_commit" of the code (None without git),
        "devices", the "processor" of the host and how many of its "cores" this process may use, the
        "load_average" of the last minute, and the "date".
    """
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        # That of the code at hand: an editable installation keeps the version it was made with.
        "versions": {
            "dlcore": __version__,
            "python": platform.python_version(),
            **packages,
        },
        "git_commit": _commit(),
        "devices": [f"{device.platform}:{device.device_kind}" for device in jax.devices()],
        "processor": _processor(),
        "cores": _cores(),
        "load_average": round(os.getloadavg()[0], 2),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _cores() -> int:
    """Returns the number of cores that this process may use; all where there is no affinity."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    """Returns the name of the host's processor, or its architecture where it is not known."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str | None:
    """Returns the commit of this file's checkout, with "+" when files were changed since."""
    folder = pathlib.Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        found = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
        return found.stdout.strip()

    try:
        # A recorded result is no change of the code that the next one comes from.
        changed = git(
            "status", "--porcelain", "-uno", "--", ":/", ":(top,exclude)experiments/results"
        )
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
