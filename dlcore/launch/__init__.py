"""Launching runs: configurations and their flags, tasks, and the functions that run them.

A task says what is trained: its data, first variables, loss and metrics. Its configuration is a
frozen dataclass from which the flags are derived. `run` trains a task in a folder, `main` turns it
into a command, and `load` returns a trained one. Modules with expensive imports are imported only
when one of the names below is used.

>>> import dataclasses
>>> from dlcore import launch
>>> from dlcore.launch.fields import integer
>>> @dataclasses.dataclass(frozen=True, kw_only=True)
... class Config(launch.Config, dataset="digits", steps=500):
...     hidden: int = integer(128, 1, 4096, "units of the hidden layer")
>>> config = Config(hidden=64, seed=3)
>>> config.hidden, config.seed, config.steps
(64, 3, 500)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlcore.launch.config import BitsConfig as BitsConfig
    from dlcore.launch.config import Config as Config
    from dlcore.launch.config import DataConfig as DataConfig
    from dlcore.launch.config import DevicesConfig as DevicesConfig
    from dlcore.launch.config import Group as Group
    from dlcore.launch.config import OptimizerConfig as OptimizerConfig
    from dlcore.launch.config import RunConfig as RunConfig
    from dlcore.launch.config import ScheduleConfig as ScheduleConfig
    from dlcore.launch.entry import main as main
    from dlcore.launch.loading import Trained as Trained
    from dlcore.launch.loading import load as load
    from dlcore.launch.process import say as say
    from dlcore.launch.running import run as run
    from dlcore.launch.task import Check as Check
    from dlcore.launch.task import Data as Data
    from dlcore.launch.task import Outcome as Outcome
    from dlcore.launch.task import Task as Task

_MODULES = {
    "config": (
        "BitsConfig",
        "Config",
        "DataConfig",
        "DevicesConfig",
        "Group",
        "OptimizerConfig",
        "RunConfig",
        "ScheduleConfig",
    ),
    "loading": ("Trained", "load"),
    "entry": ("main",),
    "process": ("say",),
    "running": ("run",),
    "task": ("Check", "Data", "Outcome", "Task"),
}
_NAMES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [*_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
