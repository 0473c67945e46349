"""Writes the page, with the sections that the report of every run has."""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dlcore.errors import InputError
from dlcore.report import markup
from dlcore.report.plots.lines import evaluated, plot_curves, reading
from dlcore.report.sections import Section, picture_section


def write_report(workdir: str | pathlib.Path, sections: Sequence[Section] = ()) -> pathlib.Path:
    """Writes report/index.html and its pictures into the folder of a run.

    Args:
        workdir: the folder with the run's metrics.jsonl and summary.json.
        sections: the job's own sections, which follow the result, the learning curves and the gap
            between training and held-out data.

    Returns:
        The path of index.html.

    Raises:
        InputError: when the run's files are missing or the report cannot be written.
    """
    workdir = pathlib.Path(workdir)
    rows = [json.loads(line) for line in _read(workdir, "metrics.jsonl").splitlines()]
    summary = json.loads(_read(workdir, "summary.json"))
    folder = workdir / "report"
    common = [
        Section("Result", lambda _: markup.table(_flat(summary))),
        picture_section("Learning curves", "curves", lambda path: plot_curves(rows, path)),
        *_gap(rows),
    ]
    return write_page(folder, str(summary.get("experiment", "Run")), [*common, *sections])


def write_page(folder: pathlib.Path, title: str, sections: Sequence[Section]) -> pathlib.Path:
    """Writes index.html and its pictures into a folder and returns the path of index.html.

    The folder is made where it does not exist.

    Raises:
        InputError: when the files cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        contents = [(section.title, section.content(folder)) for section in sections]
        page = folder / "index.html"
        text = markup.page(title, contents)
        # Texts of users may hold half a surrogate pair, which UTF-8 cannot.
        page.write_text(text, encoding="utf-8", errors="xmlcharrefreplace")
    except OSError as error:
        raise InputError(
            f"cannot write the report to {folder}: {error.strerror or error}; free space or "
            "choose another --workdir"
        ) from error
    return page


def _read(workdir: pathlib.Path, name: str) -> str:
    try:
        return (workdir / name).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot read {workdir / name}: {error.strerror or error}; the report needs the "
            "folder of a run that has ended"
        ) from error


def _gap(rows: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    """Yields a section with the last values of the metrics that training and held-out data share.

    The values on training data are those of the model as it learns, with dropout and other noise.
    """
    splits = list(dict.fromkeys(row["split"] for row in rows if row["split"] != "train"))
    lines = []
    for name in evaluated(rows):
        last = {row["split"]: row[name] for row in rows if row.get(name) is not None}
        if "train" not in last or len(last) == 1:
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
        yield Section("Generalisation", lambda _: markup.table(lines, header=header))


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
