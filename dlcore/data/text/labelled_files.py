"""Reads labelled texts from users' own tables: TSV or CSV."""

import collections
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from dlcore.data.text.files import Line, Row, columns, find_column, read_rows
from dlcore.errors import InputError

# A first line with one of these names is a header; with one of the others it is, where the line
# does not look like an example.
_LABELS = ("label", "class", "category", "target")
_OTHER_LABELS = ("sentiment", "polarity", "intent", "topic", "emotion", "rating", "stars")
_TEXTS = ("text", "sentence", "review", "comment", "tweet", "message", "content", "question")
_NAME_WORDS = 3  # most words of a column's name
Column = int | str | None


class Labelled(NamedTuple):
    """A text and the name of its class."""

    text: str
    label: str
    line: Line


class _Layout(NamedTuple):
    """The columns of text and label, and whether the first row is certain to name the columns."""

    text: int
    label: int
    named: bool


def read_labelled(
    paths: Sequence[pathlib.Path], *, text_column: Column = None, label_column: Column = None
) -> tuple[list[list[Labelled]], tuple[str, ...]]:
    """Reads texts and labels from tables of two columns, see `files.read_rows`.

    A first row with a cell that reads label, class, category or target, in upper or lower case, is
    a header and says which column of its file holds the labels. Without such a cell, the labels are
    in the column that has fewer different values in the first file. The first row of that file is
    then a header if its cells are a few words each, no other row has its label, and other labels
    are repeated. Another file has a header if it begins with the same row. Tables with more columns
    need a header with known names for texts and labels, or the arguments.

    Args:
        paths: the files.
        text_column: the number, from 1 on, or the name of the column of the texts.
        label_column: the same for the labels.

    Returns:
        The texts of each file, and notes on lines that were left out.

    Raises:
        InputError: for a row without the columns, an empty text or label, or columns that have
            equally many different values; the message names the line.
    """
    tables = [read_rows(path) for path in paths]
    for rows in tables:
        while rows[-1].cells == [""]:  # empty lines at the end
            rows.pop()
    layouts: list[_Layout] = []
    for path, rows in zip(paths, tables, strict=True):
        layouts.append(_layout(path, rows, layouts[:1], text_column, label_column))
    header = tables[0][0].cells if _names_columns(tables[0], layouts[0]) else None
    files, notes = [], []
    for path, rows, layout in zip(paths, tables, layouts, strict=True):
        has_header = layout.named or rows[0].cells == header
        if has_header:
            named = ", ".join(cell.strip() for cell in rows[0].cells)
            notes.append(f"{path}: the first line names the columns {named}")
        files.append(_labelled(path, rows[has_header:], layout))
    return files, tuple(notes)


def _layout(
    path: pathlib.Path,
    rows: Sequence[Row],
    first: Sequence[_Layout],
    text_column: Column,
    label_column: Column,
) -> _Layout:
    """Finds the columns of a file; `first` is the layout of the first file, for the others."""
    cells, place = rows[0]
    width = len(cells)
    for row in rows:
        if len(row.cells) != width or width < 2:
            raise InputError(
                f"{row.line} has {columns(len(row.cells))}; it needs a text, a tab and a label"
                + (f", as the {width} columns of the first line" if width > 2 else "")
            )
    folded = [cell.strip().casefold() for cell in cells]
    certain = any(cell in _LABELS for cell in folded)
    # The names that a user gives are those of a header.
    given = [name for name in (text_column, label_column) if isinstance(name, str)]
    named = certain or any(name.casefold() in folded for name in given)
    names = [cell.strip() for cell in cells] if named or width > 2 else []
    label = (
        find_column(label_column, names, width, place)
        if label_column is not None
        else _first(folded, (*_LABELS, *_OTHER_LABELS) if width > 2 else _LABELS)
    )
    text = find_column(text_column, names, width, place) if text_column is not None else None
    if label is None and text is not None and width == 2:
        label = 1 - text
    elif label is None and width == 2:
        label = first[0].label if first else _label_column(path, rows)
    if text is None:
        text = 1 - label if width == 2 and label is not None else _first(folded, _TEXTS)
    if text is None or label is None or text == label:
        raise InputError(
            f"{place} has {columns(width)}; it needs a text, a tab and a label, or say which "
            "columns they are (--text_column, --label_column)"
        )
    return _Layout(text, label, named)


def _first(cells: Sequence[str], names: Sequence[str]) -> int | None:
    return next((cells.index(name) for name in names if name in cells), None)


def _label_column(path: pathlib.Path, rows: Sequence[Row]) -> int:
    """Returns the column with fewer different values."""
    first, second = (len({row.cells[column] for row in rows}) for column in (0, 1))
    if first == second:
        raise InputError(
            f"both columns of {path} have {first} different values; say which one is the label by "
            "a first line such as text<TAB>label"
        )
    return int(second < first)


def _names_columns(rows: Sequence[Row], layout: _Layout) -> bool:
    """Returns whether a first row without a certain name is a header and not an example."""
    text, label = (rows[0].cells[at].strip() for at in layout[:2])
    if max(len(text.split()), len(label.split())) > _NAME_WORDS:
        return False
    counts = collections.Counter(row.cells[layout.label].strip() for row in rows[1:])
    return label not in counts and max(counts.values(), default=0) > 1


def _labelled(path: pathlib.Path, rows: Sequence[Row], layout: _Layout) -> list[Labelled]:
    examples = []
    for cells, line in rows:
        text, label = cells[layout.text].strip(), cells[layout.label].strip()
        if not (label and text):
            raise InputError(
                f"{line} has no {'text' if label else 'label'}; fill it in or remove the line"
            )
        examples.append(Labelled(text, label, line))
    if not examples:
        raise InputError(f"{path} has a header and no examples; add some")
    return examples
