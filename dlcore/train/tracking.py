"""Experiment trackers: Weights & Biases and MLflow, by their own libraries where installed."""

import importlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from dlcore.errors import InputError, choose
from dlcore.train.logs import write_json

FILE = "tracker.json"  # in the folder of a run: the tracker's own name of it, to go on with
_MOST_PARAMETERS = 100  # that MLflow takes at once


class Tracker(Protocol):
    """A connection that sends the metrics of one run to an experiment tracker."""

    def metrics(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Sends the metrics of a split after a step."""

    def close(self) -> None:
        """Ends the run in the tracker."""


def open_tracker(
    name: str,
    workdir: pathlib.Path,
    *,
    project: str,
    config: Mapping[str, Any],
    say: Callable[[str], None],
) -> Tracker:
    """Begins a run in a tracker, or continues the one that the workdir names.

    The tracker's library finds its server and the user's account by its own settings and
    environment variables. A later failure is reported once and ends the tracking, never the
    training.

    Args:
        name: one of TRACKERS.
        workdir: the folder of the run, whose name becomes the run's name in the tracker.
        project: the project or experiment that the run belongs to.
        config: the hyperparameters by name, JSON values.
        say: takes a line for the person at the terminal.

    Raises:
        InputError: for an unknown name, a library that is not installed, or a run that cannot be
            begun.
    """
    if name not in TRACKERS:
        raise choose("tracker", name, TRACKERS)
    try:
        library = importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"--track={name} needs the library {name}, which is not installed ({error}); install "
            f"it, pip install {name}, or leave the flag out"
        ) from None
    file = workdir / FILE
    try:
        known = json.loads(file.read_text(encoding="utf-8")).get(name)
    except (OSError, ValueError, AttributeError):
        known = None
    try:
        tracker = TRACKERS[name](library, workdir, project, config, known)
    except Exception as error:  # whatever the library meets: no server, no key, no such run
        line = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{name} cannot begin a run: {line}; correct its settings, or leave --track out"
        ) from error
    write_json(file, {name: tracker.identity})
    return _Careful(tracker, name, say)


class _WandB:
    """A run of Weights & Biases."""

    def __init__(
        self,
        library: Any,
        workdir: pathlib.Path,
        project: str,
        config: Mapping[str, Any],
        known: str | None,
    ):
        self._run = library.init(
            project=project,
            name=workdir.resolve().name,
            dir=str(workdir),
            config=dict(config),
            id=known,
            resume="allow",
        )
        self.identity: str = self._run.id

    def metrics(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        self._run.log({f"{split}/{name}": value for name, value in metrics.items()}, step=step)

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """A run of MLflow."""

    def __init__(
        self,
        library: Any,
        workdir: pathlib.Path,
        project: str,
        config: Mapping[str, Any],
        known: str | None,
    ):
        self._library = library
        library.set_experiment(project)
        run = library.start_run(run_id=known, run_name=None if known else workdir.resolve().name)
        self.identity: str = run.info.run_id
        if known is None:  # a run's parameters never change there
            items = [*config.items()]
            for start in range(0, len(items), _MOST_PARAMETERS):
                library.log_params(dict(items[start : start + _MOST_PARAMETERS]))

    def metrics(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        named = {f"{split}/{name}": value for name, value in metrics.items()}
        self._library.log_metrics(named, step=step)

    def close(self) -> None:
        self._library.end_run()


class _Careful:
    """A tracker that keeps the failures of another tracker from ending a training."""

    def __init__(self, tracker: Tracker, name: str, say: Callable[[str], None]):
        self._tracker: Tracker | None = tracker
        self._name, self._say = name, say

    def metrics(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        self._try(lambda tracker: tracker.metrics(step, split, metrics))

    def close(self) -> None:
        self._try(lambda tracker: tracker.close())

    def _try(self, send: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            send(self._tracker)
        except Exception as error:  # the network, the server, the library itself
            self._tracker = None
            self._say(f"{self._name} failed ({error}); the run goes on without it")


TRACKERS: dict[str, Any] = {"wandb": _WandB, "mlflow": _MLflow}
