"""Runs of one job side by side, over seeds: a table of their results, and all curves together.

    dlcore comparison --job=JOB --run="a: FLAGS" --run="b: FLAGS"

Each, once for each of --seeds, is an ordinary run in WORKDIR/NAME/SEED: what has ended is not run
again, what was interrupted continues. The result is a table of means and deviations over the seeds,
and report/index.html with the curves of all.
"""

import dataclasses
import math
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tqdm

import dlcore
from dlcore import launch
from dlcore.errors import InputError, choose
from dlcore.files import read_json, read_json_lines
from dlcore.launch import flags, info, jobs, records
from dlcore.launch import workdir as folders
from dlcore.launch.fields import LARGEST, integer, path, switch, text, texts
from dlcore.report import write_page
from dlcore.runtime.provenance import provenance
from dlcore.train.logs import write_json, writing

from .report import comparison_sections, runs_section

NAME = "comparison"
_OWN = (
    "report",
    "summary.json",
    "config.json",
    "run.json",
)  # what the comparison itself writes beside the runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(launch.Group):
    """The configuration of a comparison."""

    job: str = text("image_classification", "job whose runs are compared")
    run: tuple[str, ...] = texts(
        "NAME: FLAGS of a run; {OTHER} in the flags stands for the folder of an earlier run"
    )
    all: str = text("", "flags of all runs")
    seeds: int = integer(3, 1, LARGEST, "how often each is run, with --seed=0, 1, ...")
    workdir: str | None = path(None, "folder of the comparison; default runs/comparison/TIME")
    data_dir: str | None = path(None, "folder of prepared data sets; default TFDS's own folder")
    smoke: bool = switch(False, "take two tiny steps of every run")
    record: bool = switch(False, "store the result of a recipe in experiments/results")


def parse_runs(given: Sequence[str]) -> dict[str, list[str]]:
    """Returns the flags of each run by its name.

    Args:
        given: each NAME: FLAGS.

    Raises:
        InputError: when there are fewer than two, one is not NAME: FLAGS, or a name is not that of
            a folder of its own in the workdir.
    """
    runs: dict[str, list[str]] = {}
    for one in given:
        name, colon, rest = one.partition(":")
        name = name.strip()
        if not colon or not name or "/" in name or name[0] == "." or name in (*runs, *_OWN):
            raise InputError(
                f"--run={one} is not NAME: FLAGS with a name of its own, without / and without a "
                'dot at its beginning; write --run="adam: --optimizer=adam --learning_rate=0.001"'
            )
        runs[name] = _split(rest, f"--run={one}")
    if len(runs) < 2:
        raise InputError(f"there are {len(runs)} runs to compare; give --run twice or more")
    return runs


def _split(given: str, flag: str) -> list[str]:
    """Splits flags as a shell does."""
    try:
        return shlex.split(given)
    except ValueError as error:
        raise InputError(
            f"{flag} cannot be split into flags: {str(error).lower()}; correct its quotes"
        ) from None


def run_one(
    config: Config, runs: Mapping[str, list[str]], workdir: pathlib.Path, name: str, seed: int
) -> None:
    """Runs the job in a process of its own, unless it has ended before.

    Args:
        config: of the comparison.
        runs: the flags of each run by its name.
        workdir: of the comparison.
        name: of the run.
        seed: of the run.

    Raises:
        InputError: when it fails.
    """
    folder = workdir / name / str(seed)
    if (folder / "summary.json").exists():
        return
    given = runs[name]
    for other in [*runs][: [*runs].index(name)]:
        place = str(workdir / other / str(seed))
        given = [flag.replace(f"{{{other}}}", place) for flag in given]
    data = [] if config.data_dir is None else [f"--data_dir={config.data_dir}"]
    command = [
        *(sys.executable, "-m", "dlcore", config.job),
        *_split(config.all, "--all"),
        *given,
        *data,
        f"--seed={seed}",
        f"--workdir={folder}",
        "--smoke" if config.smoke else "--report",
    ]
    # The process finds this dlcore from whatever folder the command was given in.
    root = str(pathlib.Path(dlcore.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    ended = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", errors="replace"
    )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"the run {name} failed: {last.removeprefix('error: ')}")
    if not (folder / "summary.json").exists():
        raise InputError(
            f"the run {name} trained nothing in {folder}; leave flags such as --check and --plan "
            "out"
        )


def read(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the "summary" and the "rows" of metrics.jsonl of a run.

    Raises:
        InputError: when a file is missing or damaged.
    """
    try:
        summary = read_json(folder / "summary.json")
        return {"summary": summary, "rows": read_json_lines(folder / "metrics.jsonl")}
    except (OSError, ValueError):
        raise InputError(
            f"the files of the run in {folder} cannot be read; delete that folder, and the run is "
            "made again"
        ) from None


def mean_and_deviation(values: Sequence[float]) -> dict[str, float]:
    """Returns both over the seeds; the deviation is NaN of a single one."""
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return {"mean": statistics.fmean(values), "deviation": deviation}


def compare(config: Config) -> dict[str, dict[str, dict[str, float]]]:
    """Makes the runs, and writes what they come to.

    Returns:
        The "mean" and the "deviation" of each metric of each run.

    Raises:
        InputError: for a configuration that is not possible, or a run that fails.
    """
    started = time.perf_counter()
    trained = [job for job in jobs.names() if job != NAME]
    if config.job not in trained:
        raise choose("job", config.job, trained)
    runs = parse_runs(config.run)
    if config.record:
        records.require_recordable(NAME, config)
    workdir = _folder(config)
    with writing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    seeds = range(1 if config.smoke else config.seeds)
    turns = [(name, seed) for seed in seeds for name in runs]
    progress = tqdm.tqdm(turns, unit="run", desc=config.job)
    for number, (name, seed) in enumerate(progress, start=1):
        progress.set_postfix_str(f"{name}, seed {seed}")
        run_one(config, runs, workdir, name, seed)
        metrics = read(workdir / name / str(seed))["summary"]["metrics"]
        shown = ", ".join(f"{metric} {value:.4g}" for metric, value in metrics.items())
        progress.write(f"run {number} of {len(turns)}, {name}, seed {seed}: {shown}", sys.stderr)
    found = {name: [read(workdir / name / str(seed)) for seed in seeds] for name in runs}
    scores = {
        name: {
            metric: mean_and_deviation([run["summary"]["metrics"][metric] for run in several])
            for metric in several[0]["summary"]["metrics"]
        }
        for name, several in found.items()
    }
    summary = {
        "experiment": NAME,
        "job": config.job,
        "runs": scores,
        "by_seed": {str(seed): _of_seed(found, seed) for seed in seeds},
        "continued_from": 0,
        "seconds": time.perf_counter() - started,
        **provenance(),
    }
    write_json(workdir / "summary.json", summary)
    write_json(workdir / folders.CONFIG, config.json())
    info.write(workdir, NAME, None)
    result, *details = comparison_sections(found)
    shared = _split(config.all, "--all")
    explained = runs_section(runs, job=config.job, shared=shared, seeds=len(seeds))
    sections = [result, explained, *details]
    page = write_page(workdir / "report", f"Comparison: {config.job}", sections)
    _print(scores, page, len(turns))
    if config.record:
        (path,) = records.record(workdir)
        print(f"recorded in {path}")
    return scores


def _of_seed(found: Mapping[str, Sequence[dict[str, Any]]], seed: int) -> dict[str, Any]:
    """Returns the metrics of all runs of a seed, each after the name of its run, and their time."""
    summaries = {name: several[seed]["summary"] for name, several in found.items()}
    return {
        "result": "; ".join(f"{name}: {one['result']}" for name, one in summaries.items()),
        "metrics": {
            f"{name} {metric}": value
            for name, one in summaries.items()
            for metric, value in one["metrics"].items()
        },
        "seconds": sum(one["seconds"] for one in summaries.values()),
        "processor_seconds": sum(one["processor_seconds"] for one in summaries.values()),
        "seconds_to_first_step": None,
        "continued_from": sum(one["continued_from"] for one in summaries.values()),
    }


def _folder(config: Config) -> pathlib.Path:
    if config.workdir is not None:
        return pathlib.Path(config.workdir)
    if config.smoke:
        return pathlib.Path(tempfile.mkdtemp(prefix="dlcore-smoke-"))
    return folders.new_folder(NAME)


def _print(
    scores: Mapping[str, Mapping[str, Mapping[str, float]]], page: pathlib.Path, count: int
) -> None:
    for name, metrics in scores.items():
        values = (
            f"{metric} {score['mean']:.4f}"
            + ("" if math.isnan(score["deviation"]) else f" +- {score['deviation']:.4f}")
            for metric, score in metrics.items()
        )
        print(f"{name}: {', '.join(values)}")
    print(f"comparison: test of {count} runs; report {page}")


def main(arguments: Sequence[str]) -> int:
    """Runs the command `dlcore comparison ARGUMENTS`; returns its exit status.

    Raises:
        InputError: for bad input.
    """
    if flags.wants_help(arguments):
        print(f"{__doc__.strip()}\n\nFlags of {NAME}:\n\n{flags.help_text(Config)}")
        return 0
    config, _ = flags.parse(Config, arguments, recipes=jobs.recipes(NAME))
    compare(config)
    return 0
