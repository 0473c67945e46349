"""Reads questions for word vectors: analogies, and pairs of words with judged similarities."""

import math
import os
from collections.abc import Iterator

from dlcore.errors import InputError
from dlcore.files import read_text

Analogy = tuple[str, str, str, str]
"""Four words (a, b, c, d), of which d stands to c as b stands to a."""


def read_analogies(path: str | os.PathLike[str]) -> dict[str, list[Analogy]]:
    """Reads a file of analogies: lines of four words below a line ": section".

    Returns:
        The questions by section; sections of the same name are joined.

    Raises:
        InputError: for a line of another form, with the file and the line; and for a file without
            questions.
    """
    sections: dict[str, list[Analogy]] = {}
    questions: list[Analogy] | None = None
    for place, line in _lines(path):
        words = line.split()
        if words[0].startswith(":"):
            name = line.removeprefix(":").strip()
            if not name:
                raise InputError(f"{place}: a section without a name; write ': name'")
            questions = sections.setdefault(name, [])
        elif questions is None:
            raise InputError(f"{place}: no section before it; begin the file with ': name'")
        elif len(words) != 4:
            raise InputError(f"{place}: {len(words)} words; an analogy a : b :: c : d has 4")
        else:
            questions.append((words[0], words[1], words[2], words[3]))
    if not any(sections.values()):
        raise InputError(f"{path} has no questions; give lines of 4 words under ': section' lines")
    return sections


def read_similarities(path: str | os.PathLike[str]) -> list[tuple[str, str, float]]:
    """Reads pairs of words and the similarity that people gave them.

    A line has two words and a number, separated by tabs, else by commas, else by spaces, as in the
    files of WordSim-353, SimLex-999 and MEN. The number is in the first column that holds numbers
    in most lines; there may be other columns around it. Lines that begin with "#" are comments; the
    first other line may name the columns.

    Raises:
        InputError: for a line that lacks a word or the number, with the file and the line; and for
            a file without pairs.
    """
    lines = [(place, _split(line)) for place, line in _lines(path) if not line.startswith("#")]
    column = _column_of_numbers([cells for _, cells in lines])
    if len(lines) > 1 and _is_name("".join(lines[0][1][column : column + 1])):
        del lines[0]
    pairs = []
    for place, cells in lines:
        if len(cells) <= column or not (cells[0] and cells[1] and _is_finite(cells[column])):
            raise InputError(
                f"{place}: expected two words and a finite number in column {column + 1}, found "
                f"{' | '.join(cells)[:60]!r}; correct the line"
            )
        pairs.append((cells[0], cells[1], float(cells[column])))
    if not pairs:
        raise InputError(f"{path} has no pairs; give lines of two words and a number")
    return pairs


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Yields the lines that are not blank, each with its place for error messages."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if text := line.strip():
            yield f"line {number} of {os.fspath(path)}", text


def _split(line: str) -> list[str]:
    """Splits a line by its tabs, else by its commas, else by its white space.

    >>> _split("tiger, cat,7.35")
    ['tiger', 'cat', '7.35']
    """
    separator = next((sign for sign in "\t," if sign in line), None)
    return [cell.strip() for cell in line.split(separator)]


def _column_of_numbers(rows: list[list[str]]) -> int:
    """Returns the first column after the words that holds numbers in at least half of the rows."""
    for column in range(2, max(map(len, rows), default=0)):
        numbers = sum(len(row) > column and _is_finite(row[column]) for row in rows)
        if 2 * numbers >= len(rows):
            return column
    return 2


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _is_finite(text: str) -> bool:
    number = _number(text)
    return number is not None and math.isfinite(number)


def _is_name(text: str) -> bool:
    """Returns whether a text may name a column: it starts with a letter and is not a number."""
    return text[:1].isalpha() and _number(text) is None
