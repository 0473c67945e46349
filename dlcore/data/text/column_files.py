"""Reads sentences from users' own files in CoNLL columns: a token on each line."""

import collections
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dlcore.data.text.files import Line, columns, find_column, read_text
from dlcore.errors import InputError

# The names of the columns of CoNLL-U, which has ten; CoNLL-U Plus names its own in a comment.
_CONLLU = "ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC".split()
_GLOBAL_COLUMNS = re.compile(r"#\s*global\.columns\s*=\s*(.*)")
# The number of a token. Ranges (1-2) and empty nodes (1.1) are no tokens.
_NUMBER = re.compile(r"\d+([-.]\d+)?")
_TOKENS = ("form", "token", "word", "words", "tokens")
_DOCUMENT = "-DOCSTART-"


class Tagged(NamedTuple):
    """The tokens of a sentence, the name of each one's tag, and the line of each."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    lines: tuple[Line, ...]


class _Columns(NamedTuple):
    """The layout of a file.

    Attributes:
        width: the number of columns.
        token: the place of the tokens, from 0 on.
        tag: the place of the tags.
        numbered: whether the first column numbers the tokens.
        header: the line that names the columns, 0 if there is none.
    """

    width: int
    token: int
    tag: int
    numbered: bool
    header: int


def read_tagged(
    path: pathlib.Path,
    *,
    token_column: int | str | None = None,
    tag_column: int | str | None = None,
) -> tuple[list[Tagged], tuple[str, ...]]:
    """Reads the sentences of a file in CoNLL columns.

    A blank line ends a sentence. Columns are separated by tabs where a line has any, else by white
    space. The token is in the first column, or in the second where the first one numbers the
    tokens, and its tag in the last. The columns may have names: those of CoNLL-U, which are ten
    beginning with a number, those of a comment "# global.columns = ..." (CoNLL-U Plus), or those of
    a first line that names one of them token, word or form. Then the token is in the column of such
    a name, and the tag in UPOS if there is one, else in the last.

    A line that begins with "#" is a comment if tokens are numbered, if the line has fewer or more
    columns than tokens have, or if "#" is its token and its tag is the tag of no other token. A
    line with the token -DOCSTART- ends a sentence and is not a token; nor are ranges and empty
    nodes of CoNLL-U.

    Args:
        path: the file.
        token_column: the number, from 1 on, or the name of the column of the tokens.
        tag_column: the same for the tags.

    Returns:
        The sentences, and notes that count what was left out.

    Raises:
        InputError: for a line whose number of columns differs from most lines', an empty token or
            tag, a missing column, or a file without tokens; the message names the line.
    """
    text = read_text(path)
    lines = [*enumerate(text.split("\n"), 1)]
    rows = {at: cells for at, line in lines if (cells := _cells(line, "\t" in text))}
    layout = _layout(path, rows, token_column, tag_column)
    skipped: collections.Counter[str] = collections.Counter()
    sentences = []
    for block in _blocks(path, lines, rows, layout, skipped):
        tokens, tags = ([cells[at].strip() for _, cells in block] for at in layout[1:3])
        places = tuple(Line(path, at) for at, _ in block)
        for token, tag, place in zip(tokens, tags, places, strict=True):
            if not (token and tag):
                raise InputError(f"{place} has an empty token or tag; fill it in")
        sentences.append(Tagged(tuple(tokens), tuple(tags), places))
    if not sentences:
        raise InputError(f"{path} has no sentences; give lines of a token, a tab and a tag")
    counts = ", ".join(f"{count:,} {what}" for what, count in skipped.items())
    return sentences, ((f"{path}: left out {counts}",) if counts else ())


def _cells(line: str, tabs: bool) -> list[str]:
    """Splits a line into cells; in a file with tabs, a comment without tabs is one cell."""
    if "\t" in line:
        return line.split("\t") if line.strip() else []
    return [line] if tabs and line.startswith("#") else line.split()


def _may_be_comment(cells: Sequence[str]) -> bool:
    return cells[0] == "#" or cells[0].startswith("# ")


def _layout(
    path: pathlib.Path,
    rows: dict[int, list[str]],
    token_column: int | str | None,
    tag_column: int | str | None,
) -> _Columns:
    plain = {at: cells for at, cells in rows.items() if not _may_be_comment(cells)} or rows
    first = next(iter(plain))
    width = collections.Counter(map(len, plain.values())).most_common(1)[0][0]
    if width < 2:
        raise InputError(f"{Line(path, first)} has {columns(width)}; it needs a token and a tag")
    names, header = _names(rows), 0
    if not names and _is_header(plain, first, width):
        names, header = [name.strip() for name in plain[first]], first
    usual = [cells[0] for at, cells in plain.items() if at != header and len(cells) == width]
    numbered = width > 2 and 2 * sum(map(bool, map(_NUMBER.fullmatch, usual))) > len(usual)
    if numbered and not names and width == len(_CONLLU):
        names = _CONLLU
    folded = [name.casefold() for name in names]
    token = next((folded.index(name) for name in _TOKENS if name in folded), int(numbered))
    tag = folded.index("upos") if "upos" in folded else width - 1
    place = Line(path, first)
    if token_column is not None:
        token = find_column(token_column, names, width, place)
    if tag_column is not None:
        tag = find_column(tag_column, names, width, place)
    return _Columns(width, token, tag, numbered, header)


def _names(rows: dict[int, list[str]]) -> list[str]:
    """Returns the column names from a comment of CoNLL-U Plus; none without such a comment."""
    for cells in rows.values():
        if cells[0].startswith("#") and (match := _GLOBAL_COLUMNS.match(" ".join(cells))):
            return match[1].split()
    return []


def _is_header(rows: dict[int, list[str]], first: int, width: int) -> bool:
    """Returns whether the first line names columns: one for tokens, and the last name is no tag."""
    cells = [cell.strip() for cell in rows[first]]
    known = any(cell.casefold() in _TOKENS for cell in cells)
    return known and not any(
        row[-1].strip() == cells[-1]
        for at, row in rows.items()
        if at != first and len(row) == width
    )


def _blocks(
    path: pathlib.Path,
    lines: Sequence[tuple[int, str]],
    rows: dict[int, list[str]],
    layout: _Columns,
    skipped: collections.Counter[str],
) -> Iterator[list[tuple[int, list[str]]]]:
    """Yields the number and the cells of each line of each sentence; counts what it skips."""
    width, token, tag, numbered, header = layout
    known = {
        cells[tag].strip()
        for cells in rows.values()
        if len(cells) == width and not _may_be_comment(cells)
    } | {"#"}

    def is_comment(cells: list[str]) -> bool:
        if not cells[0].startswith("#"):
            return False
        other = numbered or len(cells) != width
        return other or (_may_be_comment(cells) and cells[tag].strip() not in known)

    block: list[tuple[int, list[str]]] = []
    for at, _ in (*lines, (0, "")):
        cells = rows.get(at)
        if cells is None:
            if block:
                yield block
            block = []
        elif at == header:
            skipped["line that names the columns"] += 1
        elif is_comment(cells):
            skipped["comments"] += 1
        elif _DOCUMENT in (cells[0].strip(), *cells[token : token + 1]):
            skipped["marks of documents"] += 1
            if block:
                yield block
            block = []
        elif len(cells) != width:
            raise InputError(
                f"{Line(path, at)} has {columns(len(cells))} where most lines have {width}; "
                "correct it, or put a blank line between sentences"
            )
        elif numbered and not (number := _NUMBER.fullmatch(cells[0].strip())):
            raise InputError(
                f"{Line(path, at)} begins with {cells[0][:40]!r} where most lines have the number "
                "of the token; correct it"
            )
        elif numbered and number and number[1]:
            skipped["ranges and empty nodes"] += 1
        else:
            block.append((at, cells))
