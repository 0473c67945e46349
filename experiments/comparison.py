"""Runs of one job side by side: `python -m experiments.comparison --run="a: FLAGS" --run="b: ..."`.

Each, once for each of --seeds, is an ordinary run in WORKDIR/NAME/SEED: what has ended is not run
again, what was interrupted continues. The result is a table of means and deviations over the seeds,
and report/index.html with the curves of all.
"""

import json
import math
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import tqdm
from absl import flags

from dlcore.errors import InputError, choose
from dlcore.report import comparison_sections, write_page
from dlcore.train.logs import writing
from experiments import common

FLAGS = flags.FLAGS
flags.DEFINE_string("job", "image_classification", "whose runs are compared")
flags.DEFINE_multi_string(
    "run", [], "NAME: FLAGS of a run, in which {OTHER} is the folder of one that stands before it"
)
flags.DEFINE_string("all", "", "flags of all runs")
flags.DEFINE_integer("seeds", 3, "runs of each, with --seed=0, 1, ...", 1)
flags.DEFINE_string("workdir", None, "folder of the comparison; default runs/comparison/TIME")
flags.DEFINE_string("data_dir", None, "folder of prepared data sets; default that of TFDS")
flags.DEFINE_bool("smoke", False, "two tiny steps of every run")

ROOT = pathlib.Path(__file__).resolve().parent.parent


def parse_runs() -> dict[str, list[str]]:
    """The flags of each run by its name.

    Raises:
        InputError: when there are fewer than two, or one is not NAME: FLAGS.
    """
    runs: dict[str, list[str]] = {}
    for given in FLAGS.run:
        name, colon, rest = given.partition(":")
        name = name.strip()
        if not colon or not name or "/" in name or name in runs:
            raise InputError(
                f"--run={given} is not NAME: FLAGS with a name of its own and without /; write "
                '--run="adam: --optimizer=adam --learning_rate=0.001"'
            )
        runs[name] = shlex.split(rest)
    if len(runs) < 2:
        raise InputError(f"there are {len(runs)} runs to compare; give --run twice or more")
    return runs


def run_one(workdir: pathlib.Path, name: str, given: list[str], seed: int) -> None:
    """Runs the job in a process of its own, unless it has ended before.

    Raises:
        InputError: when it fails.
    """
    folder = workdir / name / str(seed)
    if (folder / "summary.json").exists():
        return
    folders = {other.name: str(other / str(seed)) for other in workdir.iterdir()}
    for other, place in folders.items():
        given = [flag.replace(f"{{{other}}}", place) for flag in given]
    data = [] if FLAGS.data_dir is None else [f"--data_dir={FLAGS.data_dir}"]
    command = [
        sys.executable, "-m", f"experiments.{FLAGS.job}", *shlex.split(FLAGS.all), *given, *data,
        f"--seed={seed}", f"--workdir={folder}", *(["--smoke"] if FLAGS.smoke else ["--report"]),
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"the run {name} failed: {last.removeprefix('error: ')}")


def read(folder: pathlib.Path) -> dict[str, Any]:
    """The "summary" and the "rows" of metrics.jsonl of a run."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    summary = json.loads((folder / "summary.json").read_text())
    return {"summary": summary, "rows": [json.loads(line) for line in lines]}


def mean_and_deviation(values: list[float]) -> dict[str, float]:
    """Over the seeds; the deviation is NaN of a single one."""
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return {"mean": statistics.fmean(values), "deviation": deviation}


def main(_: list[str]) -> None:
    jobs = {path.stem for path in (ROOT / "experiments").glob("[a-z]*.py")} - {"comparison"}
    if FLAGS.job not in jobs:
        raise choose("job", FLAGS.job, jobs)
    runs = parse_runs()
    default = tempfile.mkdtemp(prefix="dlcore-smoke-") if FLAGS.smoke else common.new_workdir(
        "comparison"
    )  # fmt: skip
    workdir = pathlib.Path(FLAGS.workdir or default)
    with writing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    seeds = range(1 if FLAGS.smoke else FLAGS.seeds)
    turns = [(name, seed) for seed in seeds for name in runs]
    progress = tqdm.tqdm(turns, unit="run", desc=FLAGS.job)
    for name, seed in progress:
        progress.set_postfix_str(f"{name}, seed {seed}")
        run_one(workdir, name, runs[name], seed)
    found = {name: [read(workdir / name / str(seed)) for seed in seeds] for name in runs}
    scores = {
        name: {
            metric: mean_and_deviation([run["summary"]["metrics"][metric] for run in several])
            for metric in several[0]["summary"]["metrics"]
        }
        for name, several in found.items()
    }
    common.summarise("comparison", workdir, {"job": FLAGS.job, "runs": scores})
    page = write_page(workdir / "report", f"Comparison: {FLAGS.job}", comparison_sections(found))
    for name, metrics in scores.items():
        values = (
            f"{metric} {score['mean']:.4f}"
            + (f" +- {score['deviation']:.4f}" if len(seeds) > 1 else "")
            for metric, score in metrics.items()
        )
        print(f"{name}: {', '.join(values)}")
    print(f"comparison: test of {len(turns)} runs; report {page}")


if __name__ == "__main__":
    common.launch(main)
