"""The jobs and their recipes, found by name.

A checkout has them in `experiments/`, beside the package; an installed wheel contains them as
`dlcore.experiments`. Either way they are imported by the latter name, so that a folder
`experiments` of another program is never mistaken for this one.
"""

import ast
import importlib
import importlib.util
import pathlib
import sys
import types
from typing import TYPE_CHECKING, Any

from dlcore.errors import choose

if TYPE_CHECKING:
    from dlcore.launch.config import Group
    from dlcore.launch.task import Task

PACKAGE = "dlcore.experiments"
_DLCORE = pathlib.Path(__file__).resolve().parent.parent


def folder() -> pathlib.Path:
    """Returns the folder of the jobs."""
    inside = _DLCORE / "experiments"
    return inside if inside.is_dir() else _DLCORE.parent / "experiments"


def names() -> list[str]:
    """Returns the names of all jobs."""
    return sorted(
        path.stem
        for path in folder().iterdir()
        if (path.suffix == ".py" or (path / "__main__.py").exists())
        and not path.name.startswith(("_", "."))
    )


def recipes(job: str) -> pathlib.Path:
    """Returns the folder of a job's recipes, which need not exist."""
    return folder() / "recipes" / job


def results(job: str) -> pathlib.Path:
    """Returns the folder of a job's recorded results, which need not exist."""
    return folder() / "results" / job


def in_checkout() -> bool:
    """Returns whether the jobs come from a checkout, and not from an installed wheel."""
    return folder().parent != _DLCORE


def summary(job: str) -> str:
    """Returns the first line of a job's docstring, without importing the job."""
    path = folder() / f"{job}.py"
    if not path.exists():
        path = folder() / job / "__init__.py"
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]


def module(job: str) -> types.ModuleType:
    """Imports a job.

    Raises:
        InputError: when there is no job of that name.
    """
    if job not in names():
        raise choose("job", job, names())
    if PACKAGE not in sys.modules and not (_DLCORE / "experiments").is_dir():
        path = folder()
        spec = importlib.util.spec_from_file_location(
            PACKAGE, path / "__init__.py", submodule_search_locations=[str(path)]
        )
        assert spec is not None and spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules[PACKAGE] = package
        spec.loader.exec_module(package)
    return importlib.import_module(f"{PACKAGE}.{job}")


def task_class(job: str) -> "type[Task[Any, Any]]":
    """Returns the class of a job's task.

    Raises:
        InputError: when there is no job of that name, or the job trains nothing.
    """
    from dlcore.launch.task import Task

    found = module(job)
    for value in vars(found).values():
        if (
            isinstance(value, type)
            and issubclass(value, Task)
            and value.__module__ == found.__name__
        ):
            return value
    raise choose("job that trains a model", job, [name for name in names() if name != job])


def config_class(job: str) -> "type[Group]":
    """Returns the class of a job's configuration.

    Raises:
        InputError: when there is no job of that name.
    """
    found = module(job)
    # A job that trains nothing itself has no task.
    return found.Config if hasattr(found, "main") else task_class(job).parts()[0]


def settled(job: str, config: Any) -> Any:
    """Returns a configuration as a job's task completes it, without its data."""
    return config if hasattr(module(job), "main") else task_class(job)(config).config
