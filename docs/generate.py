"""Makes pages from the code: the glossary from its table, the reference by `reference.py`."""

import pathlib
import re
import textwrap

import pictures
import reference
import results

from dlcore import glossary
from dlcore.glossary import Term
from dlcore.launch import records


def pages(docs: pathlib.Path) -> None:
    """Writes the glossary, the results and the reference, and deletes pages of an earlier build.

    A file that would not change is left alone, so that Sphinx does not read it again.
    """
    pictures.draw_all(docs / "_pictures")
    written = {
        **_glossary(),
        "results/index.md": results.page(),
        **reference.pages(),
    }
    for name, text in written.items():
        path = docs / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for folder in {(docs / name).parent for name in written}:
        for path in folder.glob("*.md"):
            if path.relative_to(docs).as_posix() not in written:
                path.unlink()


def slug(name: str) -> str:
    """Returns a name as the anchor of a heading.

    >>> slug("1x1 convolution"), slug("R-CNN")
    ('term-1x1-convolution', 'term-r-cnn')
    """
    return "term-" + re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")


def _glossary() -> dict[str, str]:
    subjects: dict[str, list[Term]] = {}
    for term in glossary.terms():
        subjects.setdefault(term.subject, []).append(term)
    files = {subject: slug(subject).removeprefix("term-") for subject in subjects}
    found = {
        f"glossary/{files[subject]}.md": f"# {subject}\n\n" + "\n\n".join(map(entry, terms))
        for subject, terms in subjects.items()
    }
    index = ["# Glossary", "", _INTRODUCTION, ""]
    index += ["```{toctree}", ":maxdepth: 1", "", *files.values(), "```", ""]
    for subject, terms in subjects.items():
        links = ", ".join(f"[{t.name}]({files[subject]}.md#{slug(t.name)})" for t in terms)
        index += [f"**{subject}:** {links}", ""]
    return found | {"glossary/index.md": "\n".join(index)}


_INTRODUCTION = """Each entry says what a term is, where glossaries err about it, which paper it
comes from, what implements it here, and a command or a few lines of Python that show it at work.
All of the commands, names and examples are tested. `dlcore explain TERM` prints an entry."""


def entry(term: Term) -> str:
    """Returns the entry of a term in Markdown."""
    parts = [f"({slug(term.name)})=\n## {term.name}"]
    # The search of the site shows main entries of the index first, and knows no aliases by itself.
    names = ", ".join(f"! {name.replace(',', ' ')}" for name in (term.name, *term.aliases))
    parts.append(f"```{{index}} {names}\n```")
    if term.aliases:
        parts.append(f"*Also: {', '.join(term.aliases)}*")
    parts.append(term.meaning)
    if term.formula:
        parts.append(f"$$\n{term.formula}\n$$")
    for one in pictures.of_term(term.name):
        parts.append(
            f"```{{image}} ../_pictures/{one.name}.svg\n:alt: {one.alt}\n:class: drawn\n```"
        )
    if term.correction:
        text = term.correction[0].upper() + term.correction[1:]
        parts.append(f":::{{admonition}} Often wrong\n:class: warning\n{text}\n:::")
    if term.example:
        parts.append(f"```python\n{term.example}\n```")
    if term.command:
        parts.append(f"```sh\nscripts/run {term.command}\n```")
        parts += _recorded(term.command)
    if term.symbols:
        names = ", ".join(f"`{symbol}`" for symbol in term.symbols)
        parts.append(f"In the code: {names}")
    if term.papers:
        parts.append("Papers: " + "; ".join(term.papers) + ".")
    return "\n\n".join(parts)


def _recorded(command: str) -> list[str]:
    """Returns what a command printed when its result was recorded, if it was."""
    found = records.of_command(command)
    if found is None:
        return []
    shown = f"```text\n{textwrap.fill(records.printed(found), 88)}\n```"
    job = command.split()[0]
    if found["command"] not in {records.command(job, name) for name in records.names(job)}:
        return [shown]
    return [shown, "All seeds, versions and the published figure: [results](../results/index.md)."]
