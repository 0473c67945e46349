"""The provenance of a result: packages, code and devices."""

import importlib.metadata
import pathlib
import subprocess
from typing import Any

import jax

from dlcore import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def provenance() -> dict[str, Any]:
    """Returns the versions of the packages, the commit of the code and the devices, as JSON.

    The commit is None where git knows none.
    """
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        # That of the code at hand: an editable installation keeps the version it was made with.
        "versions": {"dlcore": __version__, **packages},
        "git_commit": _commit(),
        "devices": [f"{device.platform}:{device.device_kind}" for device in jax.devices()],
    }


def _commit() -> str | None:
    """Returns the commit of this file's checkout, with "+" when files were changed since."""
    folder = pathlib.Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        found = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
        return found.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
