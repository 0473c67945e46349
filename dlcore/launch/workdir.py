"""The folder of a run: which process may write to it, and what identifies the run in it."""

import contextlib
import datetime
import fcntl
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from dlcore.errors import InputError
from dlcore.files import open_own, read_json, write_whole
from dlcore.launch.config import RunConfig
from dlcore.runtime import processes
from dlcore.train.fingerprint import difference
from dlcore.train.logs import write_json, writing

CONFIG, FLAGS = "config.json", "flags.txt"


def new_folder(job: str) -> pathlib.Path:
    """Returns a new folder, for a run without --workdir."""
    return pathlib.Path("runs") / job / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")


def holds_run(workdir: pathlib.Path) -> bool:
    """Returns whether a folder holds a run, finished or not."""
    return (workdir / CONFIG).exists()


@contextlib.contextmanager
def claimed(workdir: pathlib.Path, config: RunConfig) -> Iterator[None]:
    """Makes the folder of a run and locks it for this process while open.

    Raises:
        InputError: when the folder cannot be written, holds another run, or is in use.
    """
    if config.resume == "must" and not holds_run(workdir):
        raise InputError(f"--resume=must, but there is no run in {workdir}")
    with locked(workdir):
        if processes.is_primary() and holds_run(workdir):
            _check_same_run(workdir, config)
        yield


@contextlib.contextmanager
def locked(folder: str | pathlib.Path) -> Iterator[None]:
    """Makes a folder and locks it while open, for this process or the first of several.

    A folder in an object store cannot be locked.

    Raises:
        InputError: when the folder cannot be written, or is in use.
    """
    if not processes.is_primary() or "://" in str(folder):
        yield
        return
    folder = pathlib.Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(open_own(folder / ".lock", os.O_RDWR), "rb")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another process is running in {folder}; wait for it, or choose another folder"
            ) from None
        yield


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns the values of config.json.

    Raises:
        InputError: when there is no such file, or it cannot be read.
    """
    try:
        return read_json(workdir / CONFIG)
    except FileNotFoundError:
        raise InputError(f"there is no run in {workdir}; give the --workdir of a run") from None
    except (ValueError, OSError):
        raise InputError(
            f"{workdir}/{CONFIG} is not what a run wrote, so the run there is unknown; choose "
            "another --workdir"
        ) from None


def same_run(was: dict[str, Any], config: RunConfig) -> str | None:
    """Returns in words how a configuration differs from a run's, or None.

    Options that a run does not name because they were added later have their defaults in it.
    """
    now = config.identity()
    known = config.json()
    absent = {name: default for name, default in config.defaults().items() if name in now}
    was = {
        name: value for name, value in (absent | was).items() if name in now or name not in known
    }
    return None if was == now else difference(was, now)


def _check_same_run(workdir: pathlib.Path, config: RunConfig) -> None:
    if config.resume == "never":
        raise InputError(f"--resume=never, but {workdir} holds a run; choose another --workdir")
    if why := same_run(read_config(workdir), config):
        raise InputError(
            f"{workdir} holds another run ({why}); choose another --workdir, or repeat that run by "
            f"--flagfile={workdir / FLAGS}"
        )


def record(workdir: pathlib.Path, job: str, config: RunConfig) -> None:
    """Writes flags.txt, which repeats a run, and config.json, which identifies it.

    Args:
        workdir: the folder of the run.
        job: the name of its job.
        config: the configuration that it was launched with, before its data settled any value.
    """
    path = workdir / FLAGS
    lines = [line for line in config.lines() if not line.startswith("--resume=")]
    text = "\n".join([f"# dlcore {job} --flagfile={path}", *lines]) + "\n"
    with writing(workdir):
        # A path is bytes, which need not be UTF-8: they are written as they are.
        write_whole(path, text, errors="surrogateescape")
    write_json(workdir / CONFIG, config.json())
