"""Writes the page, with the sections that the report of every run has."""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from dlcore.errors import InputError
from dlcore.files import read_json, read_json_lines, write_whole
from dlcore.report import markup
from dlcore.report.markup import Html
from dlcore.report.plots.lines import curves_of, evaluated, plot_metric, reading
from dlcore.report.sections import Section

T = TypeVar("T")

_NOTE = (
    "Both columns show the last step at which both were measured. The figures on "
    "training data are means "
    "over the steps since the previous report, taken while the model was learning, "
    "with dropout and other "
    "noise."
)


def write_report(workdir: str | pathlib.Path, sections: Sequence[Section] = ()) -> pathlib.Path:
    """Writes report/index.html and its pictures into the folder of a run.

    Args:
        workdir: the folder with the run's metrics.jsonl and summary.json. If it has config.json and
            flags.txt too, the page begins with the model, the data and the flags.
        sections: the job's own sections, which follow the result, the learning curves and the gap
            between training and held-out data.

    Returns:
        The path of index.html.

    Raises:
        InputError: when the run's files are missing or the report cannot be written.
    """
    workdir = pathlib.Path(workdir)
    rows = _read(workdir / "metrics.jsonl", read_json_lines)
    summary = _read(workdir / "summary.json", read_json)
    none: dict[str, Any] = {}
    config = _read(workdir / "config.json", read_json, none)
    flags = _read(workdir / "flags.txt", _flags, "")
    folder, title = workdir / "report", str(summary.get("experiment", "run")).replace("_", " ")
    common = [
        Section("Result", lambda _: _result(summary, config, flags)),
        Section("Learning curves", lambda folder: _curves(rows, folder)),
        *_gap(rows),
    ]
    return write_page(folder, title, [*common, *sections])


def write_page(folder: pathlib.Path, title: str, sections: Sequence[Section]) -> pathlib.Path:
    """Writes index.html and its pictures into a folder and returns the path of index.html.

    The folder is made if it does not exist.

    Raises:
        InputError: when the files cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        contents = [(section.title, section.content(folder)) for section in sections]
        page = folder / "index.html"
        text = markup.page(title, contents)
        # Texts of users may hold half a surrogate pair, which UTF-8 cannot.
        write_whole(page, text, errors="xmlcharrefreplace")
    except OSError as error:
        raise InputError(
            f"cannot write the report to {folder}: {error.strerror or error}; free space or "
            "choose another --workdir"
        ) from error
    return page


def _flags(path: pathlib.Path) -> str:
    """Returns the text of a flag file; paths in it that are not UTF-8 are shown by escapes."""
    return path.read_text(encoding="utf-8", errors="backslashreplace")


def _read(path: pathlib.Path, reader: Callable[[pathlib.Path], T], otherwise: T | None = None) -> T:
    try:
        return reader(path)
    except (OSError, ValueError) as error:
        if otherwise is not None and isinstance(error, FileNotFoundError):
            return otherwise
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot read {path}: {reason}; the report needs the folder of a run that has ended"
        ) from error


def _result(summary: Mapping[str, Any], config: Mapping[str, Any], flags: str) -> Html:
    """Shows the model, the data and the result, how to repeat the run, and all the numbers."""
    metrics = summary.get("metrics", {})
    scores = [
        (reading(name).title, reading(name).text(value))
        for name, value in metrics.items()
        if value is not None
    ]
    seconds = summary.get("seconds")
    facts = [
        ("Model", config.get("model")),
        ("Data", config.get("data_path") or config.get("dataset")),
        *scores,
        ("Steps", summary.get("step")),
        ("Parameters", summary.get("parameters")),
        ("Seconds", None if seconds is None else round(seconds)),
    ]
    first = [(name, _text(value)) for name, value in facts if value is not None]
    command, *changed = flags.splitlines() or [""]
    repeated = [
        markup.heading("Command"),
        markup.preformatted(command.removeprefix("# ")),
        markup.heading("Flags that differ from the defaults"),
        markup.preformatted("\n".join(changed) or "none"),
    ]
    return markup.join(
        [
            markup.table(first),
            *(repeated if flags else []),
            markup.folded("All numbers, times and versions", markup.table(_flat(summary))),
        ]
    )


def _curves(rows: Sequence[Mapping[str, Any]], folder: pathlib.Path) -> Html:
    """Draws one picture for each metric, as SVG, which stays sharp when zoomed."""
    names = [(metric, f"curve_{metric}.svg") for metric in curves_of(rows)]
    for metric, name in names:
        plot_metric(rows, metric, folder / name)
    return markup.join(markup.picture(name) for _, name in names)


def _gap(rows: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    """Yields a section with the metrics that training and held-out data share, at the same step.

    Each metric is taken at the last step for which both were reported.
    """
    splits = list(dict.fromkeys(row["split"] for row in rows if row["split"] != "train"))
    lines = []
    for name in evaluated(rows):
        values = {
            (row["split"], row["step"]): row[name] for row in rows if row.get(name) is not None
        }
        last: dict[str, float] = {}
        for split in splits:
            both = [step for part, step in values if part == split and ("train", step) in values]
            if both:
                last |= {part: values[part, max(both)] for part in ("train", split)}
        if not last:
            continue
        shown = reading(name)
        line = [shown.title, shown.text(last["train"])]
        for split in splits:
            here = split in last
            line.append(shown.text(last[split]) if here else "")
            line.append(shown.difference(last[split] - last["train"]) if here else "")
        lines.append(line)
    if lines:
        header = ["", "train", *(text for split in splits for text in (split, "gap"))]
        table = markup.table(lines, header=header)
        yield Section("Generalisation", lambda _: markup.join([table, markup.paragraph(_NOTE)]))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield prefix + str(name), _text(value)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
