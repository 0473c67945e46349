"""A trained run, given back: `dlcore.load(workdir)`.

Nothing here trains or writes into the run's folder.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Collection, Sequence
from typing import Any, Generic, TypeVar

import jax

from dlcore.errors import InputError
from dlcore.files import read_json
from dlcore.launch import info, jobs
from dlcore.launch import workdir as folders
from dlcore.launch.running import checkpoint_folder, variables_of
from dlcore.launch.task import Task, make_state
from dlcore.types import Variables

ConfigT = TypeVar("ConfigT")
InfoT = TypeVar("InfoT")


@dataclasses.dataclass(frozen=True)
class Trained(Generic[ConfigT, InfoT]):
    """A trained run.

    Attributes:
        task: the job, as configured.
        variables: what the run reports: those of the best evaluation under --patience, else the
            last; averaged where --ema keeps an average.
        step: of the variables.
        summary: summary.json; empty for a run that has not ended.
    """

    task: Task[Any, Any]
    variables: Variables = dataclasses.field(repr=False)
    step: int
    summary: dict[str, Any]

    @property
    def config(self) -> Any:
        """The configuration of the run."""
        return self.task.config

    @property
    def info(self) -> Any:
        """The facts about its data that the run remembers: classes, scaling, vocabulary."""
        return self.task.info

    @property
    def params(self) -> Any:
        """The parameters."""
        return self.variables["params"]

    def predict(self, inputs: Sequence[Any]) -> Any:
        """Returns the model's outputs for inputs; the job's `predict` says of which kind."""
        return self.task.predict(self._computing, inputs)

    @functools.cached_property
    def _computing(self) -> Variables:
        return self.task.computing(self.variables)

    def answers(self, inputs: Sequence[Any]) -> list[Any]:
        """Returns predictions as rows: values by column, as `--predict` writes them."""
        return self.task.answers(inputs, self.predict(inputs))


def load(
    workdir: str | pathlib.Path, task: type[Task[Any, Any]] | None = None, **options: Any
) -> Trained[Any, Any]:
    """Gives a trained run back; nothing in its folder changes.

        trained = dlcore.load("runs/digits")
        probabilities = trained.predict(images)

    Args:
        workdir: the folder of a run.
        task: its class; by default the job of the run's name in `experiments`.
        options: fields of the configuration to be used instead of the run's own; only those that
            a run may change, such as how outputs are searched.

    Raises:
        InputError: when there is no run or no whole checkpoint, for an option that the run fixes,
            and when the run is of a job that is not known here.
    """
    folder = pathlib.Path(workdir).expanduser()
    values = folders.read_config(folder)
    kind = task or jobs.task_class(info.read_job(folder))
    config_class, info_class = kind.parts()
    config = config_class.from_json(values)
    changed = config.changed(**options)
    if changed.identity() != config.identity():
        raise InputError(
            f"{folder} holds a run with other options ({folders.same_run(values, changed)}); they "
            "cannot be changed after training"
        )
    found = kind(dataclasses.replace(changed.for_use(), workdir=str(folder)))
    found.workdir = folder
    found.info = info.read(folder, info_class) if info_class is not type(None) else None
    return _restored(found)


def trained_by(
    task: type[Task[Any, Any]], config: Any, given: Collection[str]
) -> Trained[Any, Any]:
    """Returns the run in the --workdir of a command, with the options that were given beside it.

    Args:
        task: the job of the command.
        config: its configuration.
        given: the names of the flags that were given.

    Raises:
        InputError: as `load`, and for a command without --workdir or a run of another job.
    """
    if config.workdir is None:
        raise InputError("give the folder of a trained run by --workdir")
    folder = pathlib.Path(config.workdir)
    info.require_job(folder, task.name())
    options = {name: getattr(config, name) for name in given if name != "workdir"}
    return load(folder, task, **options)


def read_summary(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the values of summary.json; none for a run that has not ended.

    Raises:
        InputError: when it cannot be read.
    """
    path = folder / "summary.json"
    try:
        return read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise InputError(f"{path} is not what a run wrote; restore it") from None


def _restored(task: Task[Any, Any]) -> Trained[Any, Any]:
    from dlcore.train.checkpoint import read_state

    abstract = task.layout().abstract(lambda: make_state(task))
    summary = read_summary(task.workdir)
    step = summary.get("step") if task.config.patience is not None else None
    step, state = read_state(
        checkpoint_folder(task), abstract, task.config.identity(), task.config.defaults(), step=step
    )
    variables = task.reported(variables_of(state))
    return Trained(task, jax.device_get(variables), step, summary)
