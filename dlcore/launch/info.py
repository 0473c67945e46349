"""The facts about its data that a run remembers: classes, scaling, vocabularies.

A job describes these facts as a frozen dataclass. The vocabularies are files of their own in the
workdir, named like their fields; the other facts are in run.json beside the name of the job. All
fields must be the same when a run continues, except those with
`dataclasses.field(compare=False)`.
"""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np

from dlcore.data.text import Vocabulary
from dlcore.errors import InputError
from dlcore.files import read_json
from dlcore.train.logs import write_json, writing

InfoT = TypeVar("InfoT")
_FILE = "run.json"


def write(workdir: pathlib.Path, job: str, info: Any) -> None:
    """Writes the facts that a run must remember."""
    values, vocabularies = _parts(info)
    for name, vocabulary in vocabularies.items():
        with writing(workdir):
            vocabulary.save(workdir / f"{name}.json")
    write_json(workdir / _FILE, {"job": job, "data": values})


def read_job(workdir: pathlib.Path) -> str:
    """Returns the name of the job whose run lies in a folder.

    Raises:
        InputError: when there is no run, or its file cannot be read.
    """
    return str(_read(workdir)["job"])


def require_job(workdir: pathlib.Path, job: str) -> None:
    """Checks that a folder holds a run of a job.

    Raises:
        InputError: when it holds a run of another job, and as for `read_job`.
    """
    found = read_job(workdir)
    if found != job:
        raise InputError(f"{workdir} holds a run of {found}, not of {job}")


def read(workdir: pathlib.Path, kind: type[InfoT]) -> InfoT:
    """Returns the facts that a run remembers of its data.

    Raises:
        InputError: when one of the files is missing or damaged.
    """
    values = _read(workdir)["data"]
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in values:
            found[field.name] = _restored(values[field.name], str(field.type))
        elif "Vocabulary" in str(field.type):
            found[field.name] = _vocabulary(workdir / f"{field.name}.json")
    try:
        return kind(**found)
    except TypeError:
        raise InputError(f"{workdir / _FILE} is not what a run wrote; restore it") from None


def settle(workdir: pathlib.Path, new: InfoT) -> InfoT:
    """Returns the facts with which a run continues: the remembered ones, if the data is the same.

    Args:
        workdir: the folder of the run.
        new: the facts about the data as it is now.

    Raises:
        InputError: when the run remembers other classes or another vocabulary.
    """
    if not (workdir / _FILE).exists():  # a run of an earlier version
        for name, vocabulary in _parts(new)[1].items():
            saved = _vocabulary(workdir / f"{name}.json")
            vocabulary.check(saved.fingerprint, owner=f"the run in {workdir}")
        return new
    old = read(workdir, type(new))
    for field in dataclasses.fields(new):  # type: ignore[arg-type]
        was, now = getattr(old, field.name), getattr(new, field.name)
        if not field.compare or was is None:
            continue
        if isinstance(was, Vocabulary):
            now.check(was.fingerprint, owner=f"the run in {workdir}")
        elif was != now:
            name = field.name.replace("_", " ")
            raise InputError(
                f"the data has other {name} than the run in {workdir} began with "
                f"({_difference(was, now)}); restore the data, or choose another --workdir"
            )
    return old


def _difference(was: Any, now: Any) -> str:
    if not isinstance(was, Iterable) or isinstance(was, str):
        return f"{was} then, {now} now"
    # There may be hundreds of thousands of words.
    then, today = {*map(repr, was)}, {*map(repr, now)}
    gone = [item for item in was if repr(item) not in today]
    come = [item for item in now if repr(item) not in then]
    if not gone and not come:
        return "in another order"
    parts = [
        f"{what} {', '.join(map(str, names[:5]))}"
        for what, names in (("without", gone), ("with", come))
        if names
    ]
    return " and ".join(parts) + " now"


def _parts(info: Any) -> tuple[dict[str, Any], dict[str, Vocabulary]]:
    values = {
        field.name: getattr(info, field.name)
        for field in (dataclasses.fields(info) if info is not None else ())
    }
    vocabularies = {n: value for n, value in values.items() if isinstance(value, Vocabulary)}
    plain = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in values.items()
        if name not in vocabularies
    }
    return plain, vocabularies


def _restored(value: Any, kind: str) -> Any:
    if "ndarray" in kind and value is not None:
        return np.array(value)
    return tuple(value) if isinstance(value, list) else value


def _vocabulary(path: pathlib.Path) -> Vocabulary:
    if not path.exists():
        raise InputError(
            f"{path} is missing, and the checkpoints beside it are useless without it; restore "
            "it, or choose another --workdir"
        )
    return Vocabulary.load(path)


def _read(workdir: pathlib.Path) -> dict[str, Any]:
    path = workdir / _FILE
    try:
        found = read_json(path)
        found["job"], {**found["data"]}
    except FileNotFoundError:
        raise InputError(
            f"there is no run in {workdir} ({_FILE} is missing); give the --workdir of a run"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} is not what a run wrote; restore it") from None
    return found
