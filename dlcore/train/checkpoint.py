"""Checkpoints by Orbax: written asynchronously, fingerprinted, and refused if of another run.

A checkpoint of a step has two items: "state", the arrays, and "run", JSON with the step, the
configuration of the run, what the loop must remember, each leaf's type, shape and fingerprint, and
a fingerprint of its own. So neither the files nor the folder's name are taken on trust.
"""

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from dlcore.errors import InputError
from dlcore.files import is_utf8
from dlcore.paths import leaves_by_path
from dlcore.runtime import processes
from dlcore.train.fingerprint import describe, difference, fingerprint_of_json, fingerprints

Config = Mapping[str, Any]
Directory: TypeAlias = str | os.PathLike[str]
_DAMAGED = "Checkpoints in which a fault was found when they were to be restored.\n"


def _of_others(record: logging.LogRecord) -> bool:
    """Tells whether what asyncio logs is anything but an error that Orbax met."""
    error = record.exc_info[1] if record.exc_info else None
    frames = traceback.extract_tb(error.__traceback__ if error else None)
    return not any(f"{os.sep}orbax{os.sep}" in frame.filename for frame in frames)


def _report_others(dropped: "sys.UnraisableHookArgs") -> None:
    """Reports an error in what is dropped, unless that is a read or write that Orbax began."""
    code = getattr(dropped.object, "cr_code", None)
    if code is None or f"{os.sep}orbax{os.sep}" not in code.co_filename:
        _report(dropped)


# Orbax writes and reads the leaves side by side and raises the first error, which is told here in
# one line. The errors of the other leaves asyncio would log, each with its traceback, and Python
# would print those of leaves that are given up half-way.
logging.getLogger("asyncio").addFilter(_of_others)
_report, sys.unraisablehook = sys.unraisablehook, _report_others


class Restored(NamedTuple):
    """A restored checkpoint.

    Attributes:
        step: the step of the checkpoint.
        state: its state, placed as the caller asked.
        loop: what the loop had to remember.
        skipped: one line for each newer checkpoint that is damaged, with its name, its fault and
            the place that it was moved to.
    """

    step: int
    state: Any
    loop: dict[str, Any]
    skipped: list[str]


class _Chosen(policies.PreservationPolicy):
    """A rule for Orbax that keeps one chosen step."""

    step: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        return [checkpoint.step == self.step for checkpoint in checkpoints]


class _OwnSteps(ocp.path.step.NameFormat[ocp.path.step.Metadata]):
    """A finder of checkpoints by step, which ignores numbered folders of any other origin."""

    def __init__(self) -> None:
        self._numbered = ocp.path.step.standard_name_format()

    def build_name(self, step: int) -> str:
        return self._numbered.build_name(step)

    def find_all(self, base_path: Directory) -> Iterator[ocp.path.step.Metadata]:
        return (found for found in self._numbered.find_all(base_path) if _is_own(found.path))

    def find_step(self, base_path: Directory, step: int) -> ocp.path.step.Metadata:
        return self._numbered.find_step(base_path, step)

    def strangers(self, base_path: Directory) -> list[str]:
        found = [item for item in self._numbered.find_all(base_path) if not _is_own(item.path)]
        return [item.path.name for item in sorted(found, key=lambda item: item.step)]


_STEPS = _OwnSteps()


def _is_own(folder: epath.Path) -> bool:
    """Tells whether a folder is a checkpoint of this module, or what is left of one."""
    return (folder / "run").is_dir() or (folder / "state").is_dir()


def _steps(folder: epath.Path) -> list[int]:
    return sorted(found.step for found in _STEPS.find_all(folder)) if folder.is_dir() else []


class Checkpoints:
    """The checkpoints of one run, in one folder.

    Args:
        directory: the folder, made when it does not exist: a local path, or one on gs:// if `gcsfs`
            is installed.
        config: the options that must be equal for a checkpoint to be continued, JSON values by
            name.
        defaults: the values of options that a checkpoint does not name because they were added
            later.
        keep: the number of latest checkpoints to keep; the best one is kept as well.

    Attributes:
        directory: the folder.
        strangers: the numbered folders in it that are not checkpoints; they are left alone.

    Raises:
        InputError: when the folder cannot be written.
    """

    def __init__(
        self, directory: Directory, config: Config, *, defaults: Config | None = None, keep: int = 3
    ):
        self.directory = _absolute(directory)
        self._config = dict(config)
        self._defaults = {**(defaults or {})}
        # Orbax's own policy for the best one forgets its metrics when a folder is opened again.
        self._best = _Chosen()
        with self._writing():
            self.directory.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=policies.AnyPreservationPolicy(
                        [policies.LatestN(keep), self._best]
                    ),
                    cleanup_tmp_directories=True,
                    step_name_format=_STEPS,
                ),
            )
        self.strangers = _STEPS.strangers(self.directory)
        for step in self.steps()[::-1]:
            with contextlib.suppress(Exception):  # a damaged one, of which `restore` will tell
                self._best.step = self._read_run(step)["best"]
                break

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            # An asynchronous save reports a full disk here, through TensorStore's ValueError.
            raise InputError(
                f"cannot write checkpoints to {self.directory}: {_one_line(error)}; free space or "
                "choose another --workdir, then run the same command again: it continues from "
                "the newest checkpoint that is whole"
            ) from error

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, oldest first; damaged ones count too."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, loop: Mapping[str, Any], *, best: bool = False) -> None:
        """Saves a checkpoint in the background; `state` may be donated right after the call.

        The checkpoint of a step that is saved already is left as it is.

        Args:
            step: the number of steps taken.
            state: any tree of arrays.
            loop: JSON values that the loop must remember.
            best: whether this is the best checkpoint yet, to be kept until a better one is saved.

        Raises:
            InputError: when this checkpoint or the one before could not be written, or when a
                folder that is not a checkpoint has the step's name.
        """
        if step == self._manager.latest_step():
            return
        if (self.directory / str(step)).exists():
            raise InputError(
                f"{self.directory / str(step)} is not a checkpoint and stands in the way of "
                "that of "
                f"step {step}; move it, then run the same command again: it continues from the "
                "newest checkpoint"
            )
        if best:
            self._best.step = step
        run = {
            "step": step,
            "config": self._config,
            "best": self._best.step,
            "loop": dict(loop),
            "leaves": describe(state),
            "fingerprints": fingerprints(state),
        }
        run["fingerprint"] = fingerprint_of_json(run)
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), run=ocp.args.JsonSave(run))
        with self._writing():
            if not self._manager.save(step, args=items):
                raise RuntimeError(f"Orbax refused to save step {step} after {self.steps()}")

    def restore(self, abstract: Any, *, best: bool = False) -> Restored | None:
        """Returns the newest undamaged checkpoint, or the best one; None when there is none.

        Damaged checkpoints are moved to a folder beside this one, so that their steps can be
        saved again and nothing is lost.

        Args:
            abstract: a tree of `jax.ShapeDtypeStruct` with the shardings that the state is to
                have, whatever shardings it had when it was saved.
            best: whether to take the best checkpoint and no other.

        Raises:
            InputError: when the checkpoints are of another configuration, or all are damaged.
        """
        skipped: list[str] = []
        for candidate in self.steps()[::-1]:
            if best and candidate != self._best.step:
                continue
            why = None
            try:
                state, loop = self._read(candidate, abstract)
            except InputError:
                raise
            except Exception as error:  # whatever a damaged file makes the readers raise
                why = _one_line(error)
            # Each process reads its own part; all must find it whole.
            if processes.all_agree(why is None):
                return Restored(candidate, state, loop, skipped)
            why = why or "another process could not read its part"
            skipped.append(f"step {candidate} ({why}; {self._remove(candidate)})")
        if skipped:
            raise InputError(
                f"{'the best' if best else 'no'} checkpoint in {self.directory} is "
                f"{'not ' if best else ''}whole: {'; '.join(skipped)}; start again with another "
                "--workdir"
            )
        return None

    def _read(self, step: int, abstract: Any) -> tuple[Any, dict[str, Any]]:
        return _read(self.directory, step, abstract, self._config, self._defaults)

    def _read_run(self, step: int) -> dict[str, Any]:
        return _read_run(self.directory, step)

    def _remove(self, step: int) -> str:
        source = self.directory / str(step)
        folder = self.directory.parent / f"{self.directory.name}-damaged"
        target = folder / str(step)
        with self._writing():
            if processes.is_primary():
                count = 1
                while target.exists():  # another one of this step, or something of others
                    count += 1
                    target = folder / f"{step}-{count}"
                folder.mkdir(exist_ok=True)
                if not (folder / "README.txt").exists():
                    # An object store has no empty folders.
                    (folder / "README.txt").write_text(_DAMAGED, encoding="utf-8")
                source.rename(target)
            processes.all_agree(True)
            self._manager.reload()
        return f"moved to {target}"

    def wait(self) -> None:
        """Waits until the last save is on disk; raises InputError when it could not be written."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last save and releases the folder."""
        self.wait()
        self._manager.close()


def read_state(
    directory: Directory,
    abstract: Any,
    config: Config,
    defaults: Config | None = None,
    *,
    step: int | None = None,
) -> tuple[int, Any]:
    """Returns the step and the state of the newest undamaged checkpoint; changes nothing.

    Args:
        directory: the folder of a run's checkpoints.
        abstract: as for `Checkpoints.restore`.
        config: the configuration of the run.
        defaults: as for `Checkpoints`.
        step: the only step to read; None reads the newest.

    Raises:
        InputError: when there is no checkpoint, or all are damaged.
    """
    folder = _absolute(directory)
    wanted = [found for found in _steps(folder)[::-1] if step in (None, found)]
    if not wanted:
        which = "checkpoint" if step is None else f"checkpoint of step {step}"
        raise InputError(f"there is no {which} in {folder}; give the --workdir of a trained run")
    damaged = []
    for candidate in wanted:
        try:
            return candidate, _read(folder, candidate, abstract, config, defaults or {})[0]
        except InputError:
            raise
        except Exception as error:  # whatever a damaged file makes the readers raise
            damaged.append(f"step {candidate} ({_one_line(error)})")
    raise InputError(f"no checkpoint in {folder} is whole: {'; '.join(damaged)}")


def _read(
    directory: epath.Path, step: int, abstract: Any, config: Config, defaults: Config
) -> tuple[Any, dict[str, Any]]:
    """Returns a state whose leaves all match their fingerprints, and what the loop remembered."""
    run = _read_run(directory, step)
    # Options that came later have their defaults there; some no longer must be equal.
    was = {
        name: value
        for name, value in {**defaults, **run["config"]}.items()
        if name in config or name not in defaults
    }
    for kind, before, now in (
        ("configuration", was, dict(config)),
        ("model or optimizer", run["leaves"], describe(abstract)),
    ):
        if before != now:
            raise InputError(
                f"the checkpoints in {directory} are of another {kind} "
                f"({difference(before, now)}); choose another --workdir or the flags of that run"
            )
    # Not by the manager, which would wait for a process that could not read its part.
    reader = ocp.StandardCheckpointHandler()
    state = reader.restore(directory / str(step) / "state", args=ocp.args.StandardRestore(abstract))
    _check_arrays(state, run["fingerprints"])
    _check_step(leaves_by_path(state).get("step", step), step)
    return state, run["loop"]


def _check_arrays(state: Any, saved: Mapping[str, int]) -> None:
    found = fingerprints(state)
    wrong = [path for path, number in saved.items() if found[path] != number]
    if wrong:
        raise ValueError(f"damaged array data in {', '.join(wrong[:3])}")


def _read_run(directory: epath.Path, step: int) -> dict[str, Any]:
    """Returns the JSON item of a checkpoint.

    Raises:
        ValueError: when it is damaged, or of another step than the folder says.
    """
    run: dict[str, Any] = ocp.JsonCheckpointHandler().restore(directory / str(step) / "run")
    if "step" in run or "fingerprint" in run:  # those of earlier versions have neither
        said = run.pop("fingerprint", None)
        if fingerprint_of_json(run) != said:
            raise ValueError("damaged data of the run")
        _check_step(run["step"], step)
    return run


def _check_step(found: Any, step: int) -> None:
    if int(found) != step:
        raise ValueError(f"a copy of the checkpoint of step {int(found)}")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    # TensorStore tells what it was doing first and what went wrong last.
    return text if len(text) <= 200 else f"{text[:80]} ... {text[-115:]}"


def load_variables(directory: Directory) -> dict[str, Any]:
    """Returns the "params" of another run's newest checkpoint and its model state, on one device.

    `transplant` decides what to take over from them, and reports what matched.

    Args:
        directory: the folder of the other run's checkpoints.

    Raises:
        InputError: when there is no checkpoint.
    """
    state = next(_newest_states(directory, 1))[1]
    return {"params": state["params"], **state["model_state"]}


def average_params(directory: Directory, count: int) -> tuple[Any, list[int]]:
    """Returns the mean parameters of a run's newest checkpoints, on one device, and their steps.

    The mean of the last few checkpoints is often better than each of them (Vaswani et al. 2017,
    section 6.1).

    Args:
        directory: the folder of the run's checkpoints.
        count: how many checkpoints to average; all where there are fewer.

    Raises:
        InputError: when there is no checkpoint.
    """
    total, steps = None, []
    for step, state in _newest_states(directory, count):
        steps.append(step)
        params = state["params"]
        total = params if total is None else jax.tree.map(jnp.add, total, params)
    return jax.tree.map(lambda leaf: leaf / len(steps), total), steps


def _newest_states(directory: Directory, count: int) -> Iterator[tuple[int, Any]]:
    """Returns a run's newest checkpoints and their steps, the oldest first, on one device.

    Raises:
        InputError: when there is none, or one of them is damaged.
    """
    folder = _absolute(directory)
    if not folder.is_dir():
        raise InputError(f"no checkpoints in {folder}: there is no such folder")
    steps = _steps(folder)[-count:]
    if not steps:
        raise InputError(f"no checkpoints in {folder}; give the folder WORKDIR/checkpoints")
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    reader = ocp.StandardCheckpointHandler()
    for step in steps:
        path = folder / str(step) / "state"
        try:
            abstract = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
                reader.metadata(path).tree,
            )
            state = reader.restore(path, args=ocp.args.StandardRestore(abstract))
            _check_arrays(state, _read_run(folder, step)["fingerprints"])
        except Exception as error:  # whatever a damaged file makes the readers raise
            raise InputError(
                f"the checkpoint of step {step} in {folder} is not whole ({_one_line(error)}); "
                "move its folder away to take an older one"
            ) from error
        yield step, state


def _absolute(directory: Directory) -> epath.Path:
    scheme, remote, _ = str(directory).partition("://")
    if remote and scheme != "gs":
        raise InputError(
            f"checkpoints cannot be in {directory}: Orbax writes to folders and to gs://; mount "
            "the bucket as a folder and give that"
        )
    path = epath.Path(directory)
    try:
        path.exists()
    except ImportError as error:
        raise InputError(f"checkpoints cannot be in {directory}: {_one_line(error)}") from error
    path = path if remote else path.absolute()
    if not is_utf8(str(path)):
        raise InputError(
            f"checkpoints cannot be in {path}: Orbax writes to folders with names in UTF-8 only; "
            "choose another --workdir or --checkpoint_dir"
        )
    return path
