"""The report of a run: one HTML page and the pictures beside it."""

import html
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlcore.analysis import plots
from dlcore.errors import InputError
from dlcore.paths import leaves_by_path

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222 }
img { max-width: 100%; height: auto }
table { border-collapse: collapse }
td, th { padding: .2rem 1.5rem .2rem 0; border-bottom: 1px solid #ddd; text-align: left;
         vertical-align: top; font-weight: normal; overflow-wrap: anywhere }
th { color: #555; white-space: nowrap }
"""


def confusion_matrix(
    labels: np.ndarray, predictions: np.ndarray, *, num_classes: int
) -> np.ndarray:
    """Counts (K, K): true class by row, predicted class by column.

    Args:
        labels: (N,) integers in 0..K-1.
        predictions: (N,) integers in 0..K-1.
        num_classes: K.

    Raises:
        ValueError: when a class is not in 0..K-1 or the lengths differ.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and predictions {predictions.shape} must be (N,)")
    both = np.concatenate([labels, predictions])
    if both.size and not (both.min() >= 0 and both.max() < num_classes):
        raise ValueError(f"classes {both.min()}..{both.max()} do not lie in 0..{num_classes - 1}")
    counts = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def first_filters(params: Any, image_shape: Sequence[int]) -> np.ndarray | None:
    """The first layer's filters as pictures (h, w, C, filters), or None when there are none.

    Args:
        params: the parameters. The first leaf counts that is a convolution over C channels or a
            product with all H W C pixels.
        image_shape: (H, W, C).
    """
    for leaf in leaves_by_path(params).values():
        shape = np.shape(leaf)
        if len(shape) == 4 and shape[2] == image_shape[-1] and shape[0] > 1:
            return np.asarray(leaf)
        if len(shape) == 2 and shape[0] == np.prod(image_shape):
            return np.asarray(leaf).reshape(*image_shape, shape[1])
    return None


def write_report(
    workdir: str | pathlib.Path,
    *,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    filters: np.ndarray | None = None,
) -> pathlib.Path:
    """Writes report/index.html and its pictures into the folder of a run.

    Args:
        workdir: has the run's metrics.jsonl and summary.json.
        images: (N, H, W, C) uint8, the test images.
        labels: (N,) their classes.
        probabilities: (N, K) the model's.
        class_names: K names.
        filters: (h, w, C, filters) of the first layer, see `first_filters`.

    Returns:
        The path of index.html.

    Raises:
        InputError: when the run's files are missing or the report cannot be written.
    """
    workdir = pathlib.Path(workdir)
    rows = [json.loads(line) for line in _read(workdir, "metrics.jsonl").splitlines()]
    summary = json.loads(_read(workdir, "summary.json"))
    folder = workdir / "report"
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), num_classes=len(class_names))
    sections = [("Result", _table(summary))]
    try:
        folder.mkdir(exist_ok=True)
        plots.plot_curves(rows, folder / "curves.png")
        sections.append(("Learning curves", _image("curves.png") + _paragraph(_gap(rows))))
        plots.plot_confusion(matrix, class_names, folder / "confusion.png")
        sections.append(("Confusion matrix", _image("confusion.png")))
        plots.plot_mistakes(images, labels, probabilities, class_names, folder / "mistakes.png")
        sections.append(("Worst mistakes", _image("mistakes.png")))
        if filters is not None:
            plots.plot_filters(filters, folder / "filters.png")
            sections.append(("First-layer filters", _image("filters.png")))
        page = folder / "index.html"
        page.write_text(_page(str(summary.get("experiment", "Run")), sections), encoding="utf-8")
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


def _gap(rows: Sequence[Mapping[str, Any]]) -> str:
    """The last accuracies in one sentence; empty unless both splits have one."""
    last = {row["split"]: row["accuracy"] for row in rows if row.get("accuracy") is not None}
    if not {"train", "test"} <= last.keys():
        return ""
    train, test = last["train"], last["test"]
    return (
        f"At the end {train:.2%} of the training examples and {test:.2%} of the test examples are "
        f"right: a gap of {100 * (train - test):.2f} points."
    )


def _table(values: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(_text(value))}</td></tr>"
        for name, value in _flat(values)
    ]
    return f"<table>{''.join(rows)}</table>"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name} ")
        else:
            found.append((prefix + str(name), value))
    return found


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _image(name: str) -> str:
    return f'<img src="{name}" alt="{name.removesuffix(".png")}">'


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>" if text else ""


def _page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    title = html.escape(title)
    body = "\n".join(f"<h2>{html.escape(name)}</h2>\n{content}" for name, content in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )
