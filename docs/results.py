"""Makes the page of results from the recorded runs."""

import pathlib
import re
import statistics
import tomllib
from typing import Any

from dlcore.launch import jobs, records

_HERE = pathlib.Path(__file__).resolve().parent
_INTRODUCTION = """Each row is a recipe, or a job with its defaults (`default`), and what its runs
came to: the mean over the seeds and their standard deviation. The figures are read from
`experiments/results`, where `--record` and `dlcore record WORKDIR` store them. Times are those of
the first seed: seconds on the clock from the start of the command to its result, those of the
processor, and those on the clock until the first step. A load average above the number of cores
says that other programs ran beside it and that the clock shows more than the run needs.

The published figure stands beside. Where it says *not reachable here*, it belongs to data or to a
size that the recipe does not have, so the two cannot be compared. Rows in italics were measured
before results were recorded; the comment of the recipe says so."""


def page() -> str:
    """Returns the page of results in Markdown."""
    parts = ["# Results", _INTRODUCTION]
    for job in jobs.names():
        rows = [_row(job, recipe) for recipe in records.names(job)]
        head = "| run | result | time | where | published |\n| --- | --- | --- | --- | --- |"
        parts.append(f"## {job}\n\n{jobs.summary(job)}\n\n{head}\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def published() -> dict[str, dict[str, dict[str, Any]]]:
    """Returns what papers report, by job and recipe."""
    return tomllib.loads((_HERE / "published.toml").read_text(encoding="utf-8"))


def spread(found: dict[str, Any], expected: str | None) -> dict[str, str]:
    """Returns mean and deviation over the seeds of the metrics that matter, by name.

    They are those that the recipe says to expect, or else the first of the result.

    >>> runs = {"0": {"metrics": {"accuracy": 0.5, "loss": 2}}, "1": {"metrics": {"accuracy": 0.7}}}
    >>> spread({"runs": runs}, "test accuracy 0.6 in 3 s")
    {'accuracy': '0.6000 ± 0.1414'}
    """
    runs = [*found["runs"].values()]
    names = [*runs[0]["metrics"]]
    named = [
        name for name in names if re.search(rf"\b{re.escape(name.split()[-1])}\b", expected or "")
    ]
    return {
        name: _mean([run["metrics"][name] for run in runs if run["metrics"].get(name) is not None])
        for name in named or names[:1]
    }


def _mean(values: list[float]) -> str:
    if not values:
        return "not finite"
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{deviation}"


def _row(job: str, recipe: str) -> str:
    found = records.read(job, recipe)
    about = "" if recipe == records.DEFAULT else _plain(records.about(job, recipe))
    cells = [f"`{recipe}`<br>{about}"]
    if found is None:
        expected = records.expected(job, recipe)
        earlier = f"*{_plain(expected or '')}* (measured earlier, not recorded)"
        cells += [earlier if expected else "not recorded", "", ""]
    else:
        run, seeds = next(iter(found["runs"].values())), [*found["runs"]]
        values = spread(found, records.expected(job, recipe))
        lines = [f"{_plain(name)} **{value}**" for name, value in values.items()]
        lines.append(f"(seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})")
        versions = [f"{name} {run['versions'][name]}" for name in ("dlcore", "jax", "python")]
        where = "; ".join([_plain(records.machine(run)), ", ".join(versions), run["date"]])
        cells += ["<br>".join(lines), _times(run), where]
    known = published().get(job, {}).get(recipe)
    cells.append(_published(known) if known else "")
    return "| " + " | ".join(cells) + " |"


def _published(known: dict[str, Any]) -> str:
    end = "" if known.get("same_data") else "; *not reachable here*"
    return f"{_plain(known['figure'])} ({known['source']}){end}"


def _times(run: dict[str, Any]) -> str:
    if run["seconds"] is None:
        return "not known: the run was interrupted"
    first = run["seconds_to_first_step"]
    parts = [f"{run['seconds']:.0f} s", f"{run['processor_seconds']:.0f} s of the processor"]
    return "<br>".join([*parts, *([f"first step after {first:.0f} s"] if first else [])])


def _plain(text: str) -> str:
    """Returns a text as a cell of a table has it."""
    return re.sub(r"([|<*_])", r"\\\1", text)
