"""Reads users' own text files in UTF-8, plain or compressed by gzip.

A path is one file, of which a fixed share is held out, or a folder with a file for training and one
for the test. A file belongs to a split when its name, split at dots, dashes and underscores, has
the part `train`, or `test`, `dev`, `valid`, `validation` or `val`: `train.tsv`,
`en_ewt-ud-dev.conllu`, `wiki.valid.tokens`.
"""

import os
import pathlib
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dlcore.errors import InputError
from dlcore.files import read_whole

HELD_OUT = ("test", "dev", "valid", "validation", "val")
_LABEL_NAMES = ("label", "class", "category", "target")
# CoNLL-U: ten columns separated by tabs, of which the second is the form and the fourth the
# universal part of speech. Lines of ranges (1-2) and empty nodes (1.1) are not tokens.
_CONLLU_COLUMNS, _CONLLU_TOKEN, _CONLLU_TAG = 10, 1, 3
_CONLLU_ID = re.compile(r"\d+([-.]\d+)?")


class Line(NamedTuple):
    """A line of a file, to name in error messages.

    Attributes:
        path: the file.
        number: the number of the line, from 1 on.
    """

    path: pathlib.Path
    number: int

    def __str__(self) -> str:
        return f"line {self.number} of {self.path}"


class Labelled(NamedTuple):
    """A text and the name of its class."""

    text: str
    label: str
    line: Line


class Tagged(NamedTuple):
    """The tokens of a sentence, the name of each one's tag, and the line of each."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    lines: tuple[Line, ...]


def existing(data_path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path that a user gave.

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


def train_and_test(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Finds the training and the test file of a folder by their names.

    Raises:
        InputError: when one of them is missing.
    """
    by_split = splits(path)
    held_out = [name for name in HELD_OUT if name in by_split]
    if "train" not in by_split or not held_out:
        raise InputError(
            f"{path} has {', '.join(file.name for file in visible(path)[:8])}; it needs a file "
            f"named train and one named {', '.join(HELD_OUT[:-1])} or {HELD_OUT[-1]}"
        )
    return by_split["train"], by_split[held_out[0]]


def read_text(path: pathlib.Path) -> str:
    """Reads the text of a file, or of all files of a folder in the order of their names.

    Line ends become "\\n"; empty lines at the end are dropped.

    Raises:
        InputError: when the path or one of its files is missing, cannot be read, holds no text or
            is not UTF-8; the message names the line.
    """
    if path.is_dir():
        return "".join(read_text(file) for file in visible(path))
    text = _decoded(path)
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"


def read_lines(path: pathlib.Path) -> list[str]:
    """Reads the lines of a file, empty ones too.

    Only "\\n" and "\\r\\n" end a line: parallel texts that hold other line ends stay aligned.

    Raises:
        InputError: for the same reasons as `read_text`.
    """
    return [line.removesuffix("\r") for line in _decoded(path).removesuffix("\n").split("\n")]


def _decoded(path: pathlib.Path) -> str:
    try:
        text = read_whole(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{Line(path, number)} is not UTF-8 (byte 0x{error.object[error.start]:02x}); convert "
            "the file to UTF-8"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}; give a file or folder of text") from None
    if not text.strip():
        raise InputError(f"{path} holds no text; give a file with some")
    return text


def read_labelled(paths: Sequence[pathlib.Path]) -> list[list[Labelled]]:
    """Reads texts from TSV files: a line is a text and a label, in any order, and a tab between.

    A first line with a cell that reads label, class, category or target, in upper or lower case, is
    a header and says which column of its file holds the labels. Without a header the labels are in
    the column that has fewer different values in the first file.

    Raises:
        InputError: for a line without two columns, an empty text or label, or columns that have
            equally many different values; the message names the line.
    """
    files = []
    column = None
    for path in paths:
        rows = [line.split("\t") for line in read_text(path)[:-1].split("\n")]
        for number, row in enumerate(rows, 1):
            if len(row) != 2:
                raise InputError(
                    f"{Line(path, number)} has {columns(len(row))}; it needs a text, a tab and a "
                    "label"
                )
        header = [cell.strip().lower() in _LABEL_NAMES for cell in rows[0]]
        if any(header):
            column = header.index(True)
        elif column is None:
            column = _label_column(path, rows)
        files.append(_labelled(path, rows, column, start=int(any(header))))
    return files


def _label_column(path: pathlib.Path, rows: list[list[str]]) -> int:
    """Returns the column with fewer different values."""
    first, second = (len({row[column] for row in rows}) for column in (0, 1))
    if first == second:
        raise InputError(
            f"both columns of {path} have {first} different values; say which one is the label by "
            "a first line such as text<TAB>label"
        )
    return int(second < first)


def _labelled(path: pathlib.Path, rows: list[list[str]], column: int, start: int) -> list[Labelled]:
    examples = []
    for number, row in enumerate(rows[start:], start + 1):
        label, text = row[column].strip(), row[1 - column].strip()
        if not (label and text):
            raise InputError(
                f"{Line(path, number)} has no {'text' if label else 'label'}; fill it in or remove "
                "the line"
            )
        examples.append(Labelled(text, label, Line(path, number)))
    if not examples:
        raise InputError(f"{path} has a header and no examples; add some")
    return examples


def read_tagged(path: pathlib.Path, *, tag_column: int | None = None) -> list[Tagged]:
    """Reads the sentences of a file in CoNLL columns, a token per line.

    A blank line ends a sentence. Columns are separated by tabs where a line has any, else by white
    space. The token is in the first column and its tag in the last. In CoNLL-U (ten columns) the
    token is in the second column and its tag, the universal part of speech, in the fourth. A line
    before a sentence is a comment when it begins with "#" and has no tab, or begins with "# " in a
    file without tabs; a sentence that begins with -DOCSTART- only separates documents.

    Args:
        path: the file.
        tag_column: the column of the tags, from 1 on; None takes the one named above.

    Raises:
        InputError: for a line that has too few columns or more or fewer than the line before, or a
            file without tokens; the message names the line.
    """
    sentences: list[Tagged] = []
    width = None
    for rows in _blocks(path):
        tokens, tags, lines = [], [], []
        for number, row in rows:
            if width not in (None, len(row)):
                raise InputError(
                    f"{Line(path, number)} has {columns(len(row))} where lines before have "
                    f"{width}; correct it, or put a blank line between sentences"
                )
            width = len(row)
            conllu = width == _CONLLU_COLUMNS and bool(_CONLLU_ID.fullmatch(row[0]))
            tag = (_CONLLU_TAG if conllu else width - 1) if tag_column is None else tag_column - 1
            if not 0 <= tag < width or width < 2:
                raise InputError(
                    f"{Line(path, number)} has {columns(width)}; it needs a token and a tag"
                    + (f" in column {tag_column}" if tag_column is not None else "")
                )
            if conllu and not row[0].isdigit():
                continue
            tokens.append(row[_CONLLU_TOKEN if conllu else 0].strip())
            tags.append(row[tag].strip())
            lines.append(Line(path, number))
            if not (tokens[-1] and tags[-1]):
                raise InputError(f"{lines[-1]} has an empty token or tag; fill it in")
        if tokens and tokens[0] != "-DOCSTART-":
            sentences.append(Tagged(tuple(tokens), tuple(tags), tuple(lines)))
    if not sentences:
        raise InputError(f"{path} has no sentences; give lines of a token, a tab and a tag")
    return sentences


def _blocks(path: pathlib.Path) -> Iterator[list[tuple[int, list[str]]]]:
    """Yields, for each sentence, the number and the cells of each of its lines."""
    text = read_text(path)
    tabs = "\t" in text
    rows: list[tuple[int, list[str]]] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        comment = line.startswith("#") if tabs else line == "#" or line.startswith("# ")
        comment = comment and "\t" not in line
        if not line.strip():
            if rows:
                yield rows
            rows = []
        elif rows or not comment:
            rows.append((number, line.split("\t") if "\t" in line else line.split()))


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
