"""Recorded results of runs of recipes, of jobs with their defaults, and of the glossary's commands.

A record is a file of the checkout, `experiments/results/JOB/NAME.json`, with one entry for each
seed. Its name is that of the recipe, "default" for the job's defaults, or made from the flags of a
command that the glossary shows. A run with `--record` records itself, and `dlcore record WORKDIR`
records a finished run. The documentation takes its figures from these files, so that nobody types
them by hand.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import shlex
from collections.abc import Iterator
from typing import Any

from dlcore import glossary
from dlcore.errors import InputError
from dlcore.files import read_json, write_whole
from dlcore.launch import flags, info, jobs
from dlcore.launch import workdir as folders
from dlcore.launch.config import Group, specs
from dlcore.launch.fields import Path
from dlcore.train.logs import writing

DEFAULT = "default"
# What may differ between two runs of one recipe: where a run lies, and what it tells on its way.
_FREE = {
    *("workdir", "seed", "data_dir", "checkpoint_dir", "checkpoint_every", "resume", "record"),
    *("log_every", "report", "profile", "track", "stall_seconds"),
}
# What a record keeps of the summary of a run.
_KEPT = (
    *("result", "metrics", "seconds", "seconds_to_first_step", "processor_seconds"),
    *("devices", "processor", "cores", "load_average", "versions", "git_commit", "date"),
)


def recipe_file(job: str, recipe: str) -> pathlib.Path:
    """Returns the flag file of a recipe."""
    return jobs.recipes(job) / f"{recipe}.flags"


def names(job: str) -> list[str]:
    """Returns "default" and the names of a job's recipes."""
    return [DEFAULT, *sorted(path.stem for path in jobs.recipes(job).glob("*.flags"))]


def shown(job: str) -> dict[str, str]:
    """Returns the further commands that the glossary shows of a job, by the names of their records.

    >>> shown("autoencoder")["model_linear"]
    'autoencoder --model=linear'
    """
    found = {}
    own = {name: _arguments(command(job, name)) for name in names(job)}
    for term in glossary.terms():
        of_job, *given = _arguments(term.command or "") or [""]
        recipe = flags.value_of(given, "recipe") or DEFAULT
        if of_job == job and recipe in own and [job, *given] != own[recipe]:
            text = " ".join(given).removeprefix("--recipe=").lower()
            found[re.sub(r"[^a-z0-9.]+", "_", text).strip("_")] = str(term.command)
    return found


def _arguments(given: str) -> list[str]:
    """Splits a command, and leaves out --report, which changes no result."""
    return [part for part in shlex.split(given) if part != "--report"]


def command(job: str, recipe: str) -> str:
    """Returns the command of a record's runs, without `scripts/run`.

    A recipe states it in its comment, where it names the files that the user must provide:
    "boltzmann --recipe=mnist_pcd --data_path=FILE".

    Raises:
        InputError: when the recipe's comment does not state it.
    """
    if recipe == DEFAULT:
        return job
    path = recipe_file(job, recipe)
    if not path.exists() and (given := shown(job).get(recipe)):
        return given
    found = re.search(
        rf"^#\s*scripts/run ({re.escape(job)} --recipe={re.escape(recipe)}\b.*)$",
        path.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    if found is None:
        raise InputError(f"{path} lacks the comment `scripts/run {job} --recipe={recipe}`; add it")
    return found[1].strip()


def expected(job: str, recipe: str) -> str | None:
    """Returns the result that the comment of a recipe says to expect, or None."""
    path = recipe_file(job, recipe)
    if not path.exists():
        return None
    found = re.search(
        r"^# Expected: (.*(?:\n# .*)*)", path.read_text(encoding="utf-8"), re.MULTILINE
    )
    return found and re.sub(r"\n#\s*", " ", found[1])


def about(job: str, recipe: str) -> str:
    """Returns the text before the command in a recipe's comment; of a job, the first line."""
    if recipe == DEFAULT:
        return jobs.summary(job)
    text = recipe_file(job, recipe).read_text(encoding="utf-8")
    lines = re.split(r"^#\s*scripts/run", text, maxsplit=1, flags=re.MULTILINE)[0].splitlines()
    return " ".join(line.lstrip("# ") for line in lines)


def recipe_of(job: str, config: Group) -> str:
    """Returns the name of the record for results of this configuration.

    The files that a recipe's command asks for may be any files.

    Raises:
        InputError: when no recipe and no command of the glossary has it; the error names the
            differences from the nearest recipe.
    """
    identity = _identity(config)

    def difference(name: str) -> list[str]:
        return _difference(_identity(config_of(job, name)), identity)

    differences = {recipe: difference(recipe) for recipe in names(job)}
    for name in shown(job) if all(differences.values()) else ():
        if not difference(name):
            return name
    nearest = min(differences, key=lambda recipe: len(differences[recipe]))
    if not differences[nearest]:
        return nearest
    near = "the defaults" if nearest == DEFAULT else f"--recipe={nearest}"
    raise InputError(
        f"this run of {job} is not of a recipe, the defaults or a command of the glossary, and "
        f"only their results are recorded: it differs from {near} in "
        f"{'; '.join(differences[nearest][:5])}; leave these flags out, or make a recipe with them"
    )


def config_of(job: str, recipe: str) -> Group:
    """Returns the configuration of a record's runs.

    It is the one that the task makes from the flags, as the folder of a run holds it.
    """
    arguments = shlex.split(command(job, recipe))[1:]
    return jobs.settled(
        job, flags.parse(jobs.config_class(job), arguments, recipes=jobs.recipes(job))[0]
    )


def _identity(config: Group) -> dict[str, Any]:
    """Returns the values that tell runs of recipes apart; for a path, only whether it is given."""
    values = config.json()
    return {
        name: values[name] not in (None, []) if isinstance(spec.kind, Path) else values[name]
        for name, _, spec, _ in specs(type(config))
        if name not in _FREE
    }


def _difference(known: dict[str, Any], given: dict[str, Any]) -> list[str]:
    def shown(value: Any) -> str:
        return json.dumps(value) if isinstance(value, (bool, list)) or value is None else str(value)

    return [
        f"--{name} ({shown(given[name])} instead of {shown(known[name])})"
        for name in known
        if given[name] != known[name]
    ]


def require_recordable(job: str, config: Group) -> None:
    """Checks, before a run is made, that its result can be recorded.

    Raises:
        InputError: when there is no checkout, or no recipe and no command of the glossary has the
            configuration.
    """
    _folder(job)
    recipe_of(job, config)


def _folder(job: str) -> pathlib.Path:
    """Returns the folder in which the results of a job are recorded.

    Raises:
        InputError: in an installed package.
    """
    if not jobs.in_checkout():
        raise InputError(
            "results are recorded in a checkout of dlcore, but this is an installed package; run "
            "the command in a checkout, by scripts/run"
        )
    return jobs.results(job)


def record(*workdirs: pathlib.Path) -> list[pathlib.Path]:
    """Records the results of finished runs, and leaves their folders unchanged.

    A new entry replaces the old one of the same recipe and seed.

    Args:
        workdirs: the folders of the runs.

    Returns:
        The file of each record.

    Raises:
        InputError: when a folder holds no finished run, or a run whose configuration has no record;
            then nothing is recorded.
    """
    found = [_read(workdir) for workdir in workdirs]
    return [_store(*one) for one in found]


def _read(workdir: pathlib.Path) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """Returns the job, the recipe, the values common to its runs, and the entries by seed."""
    job = info.read_job(workdir)
    config: Any = jobs.config_class(job).from_json(folders.read_config(workdir))
    recipe = recipe_of(job, config)
    path = workdir / "summary.json"
    try:
        summary = read_json(path)
    except FileNotFoundError:
        raise InputError(
            f"the run in {workdir} has not finished; the same command with --workdir={workdir} "
            "finishes it"
        ) from None
    except (OSError, ValueError):
        raise InputError(f"{path} is not what a run wrote; make the run again") from None
    by_seed = summary.get("by_seed") or {str(config.seed): {}}
    entries = {seed: _entry(path, summary | own) for seed, own in by_seed.items()}
    for seed, entry in entries.items():
        given = "" if "by_seed" in summary else f" --seed={seed}"
        entry["command"] = command(job, recipe) + given
    common = {
        "command": command(job, recipe),
        "dataset": None if getattr(config, "data_path", None) else getattr(config, "dataset", None),
    }
    return job, recipe, common, entries


def _entry(path: pathlib.Path, summary: dict[str, Any]) -> dict[str, Any]:
    missing = [name for name in (*_KEPT, "continued_from") if name not in summary]
    if missing:
        raise InputError(
            f"{path} does not say {missing[0].replace('_', ' ')}, as that of a run by an earlier "
            "version; make the run again"
        )
    entry = {name: summary[name] for name in _KEPT}
    if summary["continued_from"]:  # the time before the interruption is not known
        entry |= dict.fromkeys(("seconds", "seconds_to_first_step", "processor_seconds"))
    return entry


def _store(job: str, recipe: str, common: dict[str, Any], entries: dict[str, Any]) -> pathlib.Path:
    folder = _folder(job)
    path = folder / f"{recipe}.json"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            runs = (read(job, recipe) or {"runs": {}})["runs"] | entries
            runs = {seed: runs[seed] for seed in sorted(runs, key=int)}
            text = json.dumps({**common, "runs": runs}, indent=1, ensure_ascii=False)
            write_whole(path, text + "\n")
    return path


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """Locks a folder for this process while open, since two seeds may end at the same time."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read(job: str, recipe: str) -> dict[str, Any] | None:
    """Returns the record of a recipe, or None where nothing is recorded.

    Raises:
        InputError: when the file is damaged.
    """
    path = jobs.results(job) / f"{recipe}.json"
    try:
        return read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise InputError(f"{path} is not what a run recorded; restore it") from None


def of_command(given: str) -> dict[str, Any] | None:
    """Returns the record of the run that a command starts, or None; --report changes no result.

    >>> of_command("image_classification --steps=1") is None
    True
    """
    job, *arguments = _arguments(given)
    for name in (flags.value_of(arguments, "recipe") or DEFAULT, *shown(job)):
        found = read(job, name)
        if found and _arguments(found["command"]) == [job, *arguments]:
            return found
    return None


def printed(found: dict[str, Any]) -> str:
    """Returns the printed lines of a record's first seed, with its time and its machine."""
    seed, run = next(iter(found["runs"].items()))
    return f"seed {seed}: {run['result']} ({machine(run)}, {run['date']})"


def machine(run: dict[str, Any]) -> str:
    """Returns the machine that a recorded run used, and the load average on it.

    >>> machine({"devices": ["cpu:cpu"], "processor": "A", "cores": 2, "load_average": 3.14})
    '2 cores of A, load average 3.1'
    """
    kind, count = run["devices"][0], len(run["devices"])
    cores = f"{run['cores']} core{'s' if run['cores'] > 1 else ''} of {run['processor']}"
    device = cores if kind.startswith("cpu:") else f"{count} x {kind.partition(':')[2]}"
    return f"{device}, load average {run['load_average']:.1f}"
