"""The report sections that show several runs of one job side by side."""

import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlcore.report import markup
from dlcore.report.plots.lines import evaluated, plot_lines, reading
from dlcore.report.sections import Section, picture_section


def comparison_sections(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Section]:
    """Shows the final metrics of each run and its curves, as means over its repetitions.

    Args:
        runs: the repetitions of each run by its name, each with its "summary" and the "rows" of
            its metrics.jsonl. A summary may have "layers": the deviation of each activation
            before training by its name.
    """
    sections = [Section("Result", lambda _: _table(runs))]
    first = next(iter(runs.values()))[0]
    for metric in evaluated(first["rows"]):
        for split in ("train", "test"):
            curves = {name: _mean_curve(several, split, metric) for name, several in runs.items()}
            if all(len(steps) for steps, _ in curves.values()):
                sections.append(_curves_section(curves, split, metric))
    if all("layers" in several[0]["summary"] for several in runs.values()):
        layers = {name: several[0]["summary"]["layers"] for name, several in runs.items()}
        sections.append(
            picture_section(
                "Activations before training",
                "layers",
                lambda path: plot_lines(
                    {name: (range(len(x)), list(x.values())) for name, x in layers.items()},
                    path,
                    title="Activations before training",
                    x="layer, in order of execution",
                    y="standard deviation",
                ),
            )
        )
    return sections


def runs_section(
    runs: Mapping[str, Sequence[str]], *, job: str, shared: Sequence[str], seeds: int
) -> Section:
    """Explains the runs: what all have in common, the flags of each, and where its reports are.

    Args:
        runs: the flags of each run by its name.
        job: the job that they are runs of.
        shared: the flags of all.
        seeds: the number of repetitions of each.
    """

    def content(_: Any) -> markup.Html:
        flags = f", all with {shlex.join(shared)}" if shared else ""
        repeated = f"each with the seeds 0 to {seeds - 1}" if seeds > 1 else "each with the seed 0"
        rows = [
            [
                name,
                shlex.join(own) or "the defaults",
                markup.join(
                    markup.link(f"../{name}/{seed}/report/index.html", f"seed {seed} ")
                    for seed in range(seeds)
                ),
            ]
            for name, own in runs.items()
        ]
        return markup.join(
            [
                markup.paragraph(f"Runs of {job}{flags}; {repeated}."),
                markup.table(rows, header=["run", "flags", "reports"]),
            ]
        )

    return Section("Runs", content)


def _curves_section(curves: Any, split: str, metric: str) -> Section:
    shown = reading(metric)
    scaled = {
        name: (steps, np.asarray(values) * shown.factor) for name, (steps, values) in curves.items()
    }
    title = f"{shown.title}, {split}"
    return picture_section(
        title,
        f"{split}_{metric}",
        lambda path: plot_lines(scaled, path, title=title, x="step", y=shown.label),
    )


def _mean_curve(
    several: Sequence[Mapping[str, Any]], split: str, metric: str
) -> tuple[list[int], list[float]]:
    """Averages over repetitions at each step that all of them have; None values are left out."""
    by_step = [
        {
            row["step"]: row[metric]
            for row in run["rows"]
            if row["split"] == split and row.get(metric) is not None
        }
        for run in several
    ]
    steps = sorted(set.intersection(*map(set, by_step)))
    return steps, [statistics.fmean(values[step] for values in by_step) for step in steps]


def _table(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> markup.Html:
    names = list(next(iter(runs.values()))[0]["summary"]["metrics"])
    header = ["run", *(reading(name).title for name in names), "seconds"]
    rows = []
    for run, several in runs.items():
        cells = []
        for name in names:
            values = [repetition["summary"]["metrics"][name] for repetition in several]
            shown, spread = reading(name), statistics.stdev(values) if len(values) > 1 else None
            text = shown.text(statistics.fmean(values))
            cells.append(text if spread is None else f"{text} ± {shown.text(spread)}")
        seconds = statistics.fmean(repetition["summary"]["seconds"] for repetition in several)
        rows.append([run, *cells, f"{seconds:.0f}"])
    return markup.table(rows, header=header)
