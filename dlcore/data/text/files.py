"""Reads users' own text files in UTF-8, plain or compressed by gzip.

A path is one file, of which a fixed share is held out, or a folder with a file for training and one
for the test. A file belongs to a split when its name, split at dots, dashes and underscores, has
the part `train`, or `test`, `dev`, `valid`, `validation` or `val`: `train.tsv`,
`en_ewt-ud-dev.conllu`, `wiki.valid.tokens`.
"""

import csv
import io
import os
import pathlib
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from dlcore.errors import InputError
from dlcore.files import read_text as decoded

HELD_OUT = ("test", "dev", "valid", "validation", "val")
_SHOWN = 5  # files that a note names


class Line(NamedTuple):
    """A line of a file, for error messages.

    Attributes:
        path: the file.
        number: the number of the line, from 1 on.
    """

    path: pathlib.Path
    number: int

    def __str__(self) -> str:
        return f"line {self.number} of {self.path}"


class Row(NamedTuple):
    """The cells of a line of a table, and the line."""

    cells: list[str]
    line: Line


class Parts(NamedTuple):
    """The files of a folder.

    Attributes:
        train: the file to train on.
        test: the file to test with.
        valid: the file to choose a model with, if there is one beside the test.
        notes: lines for the log about other files in the folder.
    """

    train: pathlib.Path
    test: pathlib.Path
    valid: pathlib.Path | None
    notes: tuple[str, ...]

    @property
    def paths(self) -> list[pathlib.Path]:
        """The existing files for training, test and validation."""
        return [path for path in (self.train, self.test, self.valid) if path is not None]


def existing(data_path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path that a user gave, after checking that it exists.

    Raises:
        InputError: when it does not exist.
    """
    path = pathlib.Path(data_path).expanduser()
    if data_path == "" or not path.exists():
        raise InputError(f"the data path {str(data_path)!r} does not exist; give a file or folder")
    return path


def splits(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """Finds the one file of each split in a folder by their names.

    Raises:
        InputError: when the folder has no visible files, or two of them for one split.
    """
    groups = files_of_splits(path)
    for first, *others in groups.values():
        if others:
            raise InputError(f"{path} has {first.name} and {others[0].name}; keep one of them")
    return {name: files[0] for name, files in groups.items()}


def files_of_splits(path: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Finds the files of each split in a folder by their names; each list is sorted.

    Raises:
        InputError: when the folder has no visible files.
    """
    groups: dict[str, list[pathlib.Path]] = {}
    for file in visible(path):
        for name in {"train", *HELD_OUT}.intersection(parts(file)):
            groups.setdefault(name, []).append(file)
    return groups


def parts(file: pathlib.Path) -> list[str]:
    """Splits the name of a file at dots, dashes and underscores.

    >>> parts(pathlib.Path("ud/en_ewt-ud-dev.conllu"))
    ['en', 'ewt', 'ud', 'dev', 'conllu']
    """
    return re.split(r"[-_.]", file.name)


def find_parts(path: pathlib.Path) -> Parts:
    """Finds the files of a folder for training, test and validation by their names.

    A file named dev, valid, validation or val is for validation if another file is named test, else
    it is for the test.

    Raises:
        InputError: when the file for training or the one for the test is missing.
    """
    by_split = splits(path)
    held_out = [by_split[name] for name in HELD_OUT if name in by_split]
    if "train" not in by_split or not held_out:
        raise InputError(
            f"{path} has {', '.join(file.name for file in visible(path)[:8])}; it needs a file "
            f"named train and one named {', '.join(HELD_OUT[:-1])} or {HELD_OUT[-1]}"
        )
    test, valid = (*held_out, None)[:2]
    assert test is not None
    train = by_split["train"]
    return Parts(train, test, valid, unread(path, [train, *held_out[:2]]))


def unread(path: pathlib.Path, used: Collection[pathlib.Path]) -> tuple[str, ...]:
    """Returns a note on the visible files of a folder that are not used; none if all are."""
    others = [file.name for file in visible(path) if file not in used]
    if not others:
        return ()
    more = f" and {len(others) - _SHOWN:,} more" if len(others) > _SHOWN else ""
    return (f"{path}: not read: {', '.join(others[:_SHOWN])}{more}",)


def read_text(path: pathlib.Path) -> str:
    """Reads the text of a file, or of all files of a folder in the order of their names.

    Line ends become "\\n"; empty lines at the end are dropped.

    Raises:
        InputError: when the path or one of its files is missing, cannot be read, holds no text or
            is not UTF-8; the message names the line.
    """
    if path.is_dir():
        return "".join(read_text(file) for file in visible(path))
    text = _filled(path).replace("\r\n", "\n").replace("\r", "\n")
    # A long text is not copied without need.
    return text if text[-1:] == "\n" != text[-2:-1] else text.rstrip("\n") + "\n"


def read_lines(path: pathlib.Path) -> list[str]:
    """Reads the lines of a file, empty ones too.

    Only "\\n" and "\\r\\n" end a line: parallel texts that hold other line ends stay aligned.

    Raises:
        InputError: for the same reasons as `read_text`.
    """
    return [line.removesuffix("\r") for line in _filled(path).removesuffix("\n").split("\n")]


def read_rows(path: pathlib.Path) -> list[Row]:
    """Reads the rows of a table with tabs between its cells, or of a CSV file if it is named so.

    CSV is as in RFC 4180, with commas, or with semicolons where the first line has no comma: a cell
    in double quotes may hold commas, line ends and doubled quotes. In a file with tabs, quotes are
    ordinary characters.

    Raises:
        InputError: for the same reasons as `read_text`, and for quotes that do not match.
    """
    text = _filled(path)
    if ".csv" not in (suffix.lower() for suffix in path.suffixes):
        lines = text.split("\n" if "\n" in text else "\r")
        if not lines[-1]:
            lines.pop()
        split = (line.removesuffix("\r").split("\t") for line in lines)
        return [Row(row, Line(path, at)) for at, row in enumerate(split, 1)]
    first = text.partition("\n")[0]
    delimiter = ";" if ";" in first and "," not in first else ","
    rows: list[Row] = []
    number = 1
    # A text may be longer than the 131,072 characters that Python's reader allows by default.
    before = csv.field_size_limit(len(text) + 1)
    with io.StringIO(text, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                if cells:  # else an empty line
                    rows.append(Row(cells, Line(path, number)))
                number = reader.line_num + 1
        except csv.Error as error:
            raise InputError(
                f"{Line(path, number)} does not begin a row of CSV ({error}); double the "
                "quotes inside of a cell in quotes"
            ) from None
        finally:
            csv.field_size_limit(before)
    return rows


def find_column(given: int | str, names: Sequence[str], width: int, place: Line) -> int:
    """Returns the index of a column, from 0 on.

    Args:
        given: the number of the column, from 1 on, or its name, in upper or lower case.
        names: the names of the columns, none if the file does not name them.
        width: the number of columns.
        place: a line to name in error messages.

    Raises:
        InputError: when there is no such column.
    """
    if isinstance(given, int):
        if 1 <= given <= width:
            return given - 1
        raise InputError(f"{place} has {columns(width)}, no column {given}; give another")
    folded = [name.casefold() for name in names]
    if given.casefold() in folded:
        return folded.index(given.casefold())
    named = f"names its columns {', '.join(names)}" if names else "names no columns"
    raise InputError(
        f"{place.path} {named}; there is no column {given!r}; give one of them, or a number from 1 "
        "on"
    )


def _filled(path: pathlib.Path) -> str:
    text = decoded(path)
    if not text or text.isspace():
        raise InputError(f"{path} holds no text; give a file with some")
    return text


def visible(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the visible files of a folder, sorted; at least one."""
    files = sorted(item for item in path.iterdir() if item.is_file() and item.name[0] != ".")
    if not files:
        raise InputError(f"{path} has no files; add some or give another path")
    return files


def columns(count: int) -> str:
    """Counts columns in words.

    >>> columns(1), columns(2)
    ('1 column', '2 columns')
    """
    return f"{count} column{'' if count == 1 else 's'}"
