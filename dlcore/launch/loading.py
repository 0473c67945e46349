"""Loading of a trained run: `dlcore.load(workdir)`.

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
        task: the task of the job, with the run's configuration.
        variables: the variables that the run reports: those of the best evaluation under
            --patience, else the last; averaged where --ema keeps an average.
        step: the step of the variables.
        summary: the values of summary.json; empty for a run that has not ended.
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
        """Returns the model's outputs for inputs of the kind that the job's `predict` takes."""
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
    """Returns a trained run; nothing in its folder changes.

        trained = dlcore.load("runs/digits")
        probabilities = trained.predict(images)

    Args:
        workdir: the folder of a run.
        task: the class of its task; by default that of the job in `experiments` that the run names.
        options: values that replace those of the run's configuration; only fields that a run may
            change are possible, such as how outputs are searched.

    Raises:
        InputError: when there is no run or no undamaged checkpoint, for an option that the run
            fixes, and when the run is of an unknown job.
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
    """Returns the run in a command's --workdir, with the options that the command line gives.

    Args:
        task: the task class of the command's job.
        config: the configuration of the command.
        given: the names of the flags on the command line.

    Raises:
        InputError: as for `load`, and for a command without --workdir or a run of another job.
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
        InputError: when the file cannot be read.
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
