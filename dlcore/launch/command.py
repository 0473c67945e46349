"""The command `dlcore`: runs jobs, prepares data sets, explains terms and records results."""

import collections
import pathlib
import platform
from collections.abc import Sequence
from typing import NoReturn

from dlcore.errors import InputError, choose
from dlcore.launch import jobs, records
from dlcore.launch.entry import guarded, main

_PREPARE = """dlcore prepare NAME [--data_dir=DIR] [--archives=DIR]

Prepares a data set for `--dataset=NAME`, without TensorFlow: downloads it, or takes its archives
from the folder --archives that they were placed in by hand. Names: """

_EXPLAIN = """dlcore explain TERM

Prints what a term is, its formula and paper, and how to run it. Terms by subject:"""

_RECORD = """dlcore record WORKDIR...

Stores the results of finished runs in experiments/results of the checkout, beside those of other
seeds: runs of recipes, of jobs with their defaults, and of commands that the glossary shows. The
runs stay as they are."""


def command(arguments: Sequence[str]) -> NoReturn:
    """Runs `dlcore ARGUMENTS`, and ends the process."""
    guarded(lambda: _command([*arguments]))


def _command(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(overview())
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "--version":
        print(_version())
        return 0
    if name == "prepare":
        return _prepare(rest)
    if name == "explain":
        return _explain(rest)
    if name == "record":
        return _record(rest)
    if name not in jobs.names():
        raise choose("job", name, [*jobs.names(), "prepare", "explain", "record"])
    job = jobs.module(name)
    if hasattr(job, "main"):  # a job that trains nothing itself
        return int(job.main(rest))
    main(jobs.task_class(name), rest)


def overview() -> str:
    """Returns the help of the command: all jobs, each with its first line."""
    width = max(map(len, [*jobs.names(), "prepare"]))
    lines = [f"  {name:<{width}}  {jobs.summary(name)}" for name in jobs.names()]
    return "\n".join(
        [
            "dlcore JOB [--flags]     trains, evaluates, checks or uses a model",
            "dlcore JOB --help        lists the flags of a job",
            "dlcore prepare NAME      prepares a data set of TensorFlow Datasets",
            "dlcore explain TERM      says what a term of deep learning is, and how to run it",
            "dlcore record WORKDIR    stores the result of a finished run in the checkout",
            "dlcore --version         names the versions of the packages and the devices",
            "",
            "Jobs:",
            *lines,
        ]
    )


def _version() -> str:
    """Returns the facts that a bug report needs: versions, commit and devices."""
    from dlcore.runtime.provenance import provenance

    found = provenance()
    dlcore, *others = (f"{name} {version}" for name, version in found["versions"].items())
    commit = f" (commit {found['git_commit']})" if found["git_commit"] else ""
    devices = collections.Counter(found["devices"])
    return "\n".join(
        [
            dlcore + commit,
            ", ".join([*others, f"Python {platform.python_version()}"]),
            "devices: " + ", ".join(f"{count} x {kind}" for kind, count in devices.items()),
        ]
    )


def _explain(arguments: list[str]) -> int:
    from dlcore import glossary

    if "--help" in arguments or "-h" in arguments or not arguments:
        print(f"{_EXPLAIN}\n\n{glossary.overview()}")
        return 0
    term = glossary.find(" ".join(arguments))
    found = records.of_command(term.command) if term.command else None
    print(glossary.explain(term, printed=records.printed(found) if found else None))
    return 0


def _record(arguments: list[str]) -> int:
    if "--help" in arguments or "-h" in arguments or not arguments:
        print(_RECORD)
        return 0 if arguments else 2
    for argument in arguments:
        if argument.startswith("-"):
            raise InputError(f"unknown flag {argument}; dlcore record WORKDIR...")
    for path in records.record(*map(pathlib.Path, arguments)):
        print(f"recorded in {path}")
    return 0


def _prepare(arguments: list[str]) -> int:
    from dlcore.data.prepare import PREPARABLE, prepare

    if "--help" in arguments or not arguments:
        print(_PREPARE + ", ".join(PREPARABLE))
        return 0 if arguments else 2
    options: dict[str, str] = {}
    names: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option in ("--data_dir", "--archives") and equals:
            options[option.removeprefix("--")] = value
        elif argument.startswith("-"):
            raise InputError(
                f"unknown flag {argument}; dlcore prepare NAME --data_dir= --archives="
            )
        else:
            names.append(argument)
    if len(names) != 1:
        raise InputError("give the name of one data set, such as mnist; --help says more")
    builder = prepare(names[0], **options)
    splits = ", ".join(
        f"{split.num_examples:,} {name}" for name, split in sorted(builder.info.splits.items())
    )
    print(f"{builder.info.full_name} is prepared in {builder.data_dir}: {splits}")
    return 0
