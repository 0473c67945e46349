"""Reads the entries of the glossary, finds them by name, and prints them."""

import dataclasses
import difflib
import functools
import pathlib
import re
import textwrap
import tomllib
from typing import Any

from dlcore.errors import InputError

_FOLDER = pathlib.Path(__file__).resolve().parent
_WIDTH = 88


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
    """An entry of the glossary.

    Attributes:
        name: the usual name of the term.
        subject: the chapter that it belongs to.
        meaning: its meaning, in a few sentences.
        aliases: other names, and common misspellings.
        formula: its definition in TeX, if there is a formula.
        correction: a frequent mistake of glossaries about it, and the correction.
        papers: the papers that introduced it.
        symbols: the dotted names of its implementations.
        example: lines of Python with their output, as in doctests.
        command: the arguments of `dlcore` that show it at work.
    """

    name: str
    subject: str
    meaning: str
    aliases: tuple[str, ...] = ()
    formula: str | None = None
    correction: str | None = None
    papers: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    example: str | None = None
    command: str | None = None


@functools.cache
def terms() -> tuple[Term, ...]:
    """Returns all entries, by subject."""
    found = []
    for path in sorted(_FOLDER.glob("*.toml")):
        chapter = tomllib.loads(path.read_text(encoding="utf-8"))
        for entry in chapter["term"]:
            fields: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value.strip()
                for name, value in entry.items()
            }
            found.append(Term(subject=chapter["subject"], **fields))
    return tuple(found)


def find(name: str) -> Term:
    """Returns the entry with a name or alias.

    Case, spaces, hyphens, the order of words and a plural's "s" make no difference.

    Raises:
        InputError: when there is no such entry; the message has the nearest names.
    """
    table = _by_key()
    if found := table.get(_key(name)) or _by_words().get(_words(name)):
        return found
    near = difflib.get_close_matches(_key(name), table, n=12, cutoff=0.5)
    # Names whose words were all given, and those that hold what was given, come before what only
    # looks alike.
    given = {*_words(name)}
    whole = [term.name for words, term in _by_words().items() if words and given >= {*words}]
    inside = [key for key in table if _key(name) and _key(name) in key]
    names = dict.fromkeys([*whole, *(table[key].name for key in [*inside, *near])])
    if not names:
        raise InputError(f"no term is like {name!r}; `dlcore explain` lists all of them")
    raise InputError(f"unknown term {name!r}; the nearest ones: {', '.join([*names][:5])}")


@functools.cache
def _by_key() -> dict[str, Term]:
    return {_key(name): term for term in terms() for name in (term.name, *term.aliases)}


@functools.cache
def _by_words() -> dict[tuple[str, ...], Term]:
    return {_words(name): term for term in terms() for name in (term.name, *term.aliases)}


def _words(name: str) -> tuple[str, ...]:
    words = re.findall(r"\w+", name.casefold())
    return tuple(sorted(word.removesuffix("s") for word in words))


def _key(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def explain(term: Term, *, printed: str | None = None) -> str:
    """Returns an entry as lines for a terminal.

    Args:
        term: the entry.
        printed: the output of its command when its result was recorded.
    """
    title = term.name + (f" ({', '.join(term.aliases)})" if term.aliases else "")
    parts = [title, _filled(term.meaning)]
    if term.formula:
        parts.append(textwrap.indent(term.formula, "    "))
    if term.correction:
        parts.append(_filled(f"Often wrong: {term.correction}"))
    if term.papers:
        parts.append("\n".join(_filled(paper, "  ") for paper in term.papers))
    if term.symbols:
        parts.append("In dlcore: " + ", ".join(term.symbols))
    if term.example:
        parts.append(textwrap.indent(term.example, "    "))
    if term.command:
        parts.append(f"Run it:  dlcore {term.command}")
    if printed:
        parts.append(_filled(f"Recorded with {printed}", "  "))
    return "\n\n".join(parts)


def _filled(text: str, later: str = "") -> str:
    return textwrap.fill(" ".join(text.split()), _WIDTH, subsequent_indent=later)


def overview() -> str:
    """Returns the names of all entries, by subject."""
    chapters: dict[str, list[str]] = {}
    for term in terms():
        chapters.setdefault(term.subject, []).append(term.name)
    return "\n\n".join(
        f"{subject}\n" + textwrap.fill(", ".join(names), _WIDTH, initial_indent="  ",
                                       subsequent_indent="  ")
        for subject, names in chapters.items()
    )  # fmt: skip
