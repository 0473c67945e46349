"""Reads the source files of installed packages without importing or executing them.

The texts change with the versions of the packages, which `versions` records.
"""

import ast
import collections
import hashlib
import importlib.metadata
import importlib.util
import pathlib
import platform
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias, TypeVar

import tqdm

T = TypeVar("T")

# The name of the standard library among the names of packages.
PYTHON = "python"
# Folders and files that are left out: tests, copies of other packages, other packages, and
# generated tables.
_LEFT_OUT = re.compile(
    r"tests?|testing|test_.*|.*_test\.py|conftest\.py|_?externals?|_?vendor(ed)?|third_party|"
    r"array_api_(compat|extra)|site-packages|dist-packages|idlelib|lib2to3|turtledemo|encodings|"
    r"pydoc_data|_sysconfigdata.*|config-.*"
)
_Definition: TypeAlias = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}
_BLANK_LINES = re.compile(r"\n\s*\n")


class Source(NamedTuple):
    """A source file; `name` is the name of its package and its path inside."""

    name: str
    text: str


class Documented(NamedTuple):
    """The docstrings of one definition at the top of a module, or of the module itself.

    Attributes:
        name: the name of the definition, "" for the module.
        text: paragraphs with blank lines between them.
    """

    name: str
    text: str


def sources(package: str) -> Iterator[Source]:
    """Yields the readable source files of a package in the order of their names."""
    root = _root(package)
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not any(_LEFT_OUT.fullmatch(part) for part in parts):
            try:
                yield Source("/".join((package, *parts)), path.read_text("utf-8"))
            except (OSError, UnicodeDecodeError):
                continue


def documented(source: Source, seen: set[str]) -> list[Documented]:
    """Returns the docstrings of a file by definition, without paragraphs that were seen before.

    Docstrings are copied and inherited, and their paragraphs even more often: each paragraph is
    kept only where it occurs first.

    Args:
        source: the file; a file that does not parse has no docstrings.
        seen: the paragraphs of earlier files; this call adds those of the file.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            module = ast.parse(source.text)
    except (SyntaxError, ValueError):
        return []
    docstrings = [("", [ast.get_docstring(module)])] + [
        (top.name, [ast.get_docstring(node) for node in _definitions(top)])
        for top in module.body
        if isinstance(top, _DEFINITIONS)
    ]
    texts = ((name, unseen("\n\n".join(filter(None, docs)), seen)) for name, docs in docstrings)
    return [Documented(name, text) for name, text in texts if text]


def _definitions(top: ast.AST) -> Iterator[_Definition]:
    """Yields a definition and all definitions in it, in the order of `ast.walk`.

    It skips expressions, which are most of a tree and hold no definitions.
    """
    nodes = collections.deque([top])
    while nodes:
        node = nodes.popleft()
        if isinstance(node, _DEFINITIONS):
            yield node
        for block in ("body", "handlers", "cases", "orelse", "finalbody"):
            nodes.extend(getattr(node, block, ()))


def paragraphs(text: str) -> list[str]:
    """Splits a text at its blank lines.

    >>> paragraphs("one\\ntwo\\n\\n\\nthree\\n")
    ['one\\ntwo', 'three']
    """
    return [part.rstrip() for part in _BLANK_LINES.split(text) if part.strip()]


def unseen(text: str, seen: set[str]) -> str:
    """Keeps the paragraphs of a text that differ from all seen ones in more than white space.

    The paragraphs that are kept are added to `seen`.

    >>> seen = {"a known paragraph"}
    >>> unseen("a known\\nparagraph\\n\\na new one", seen), len(seen)
    ('a new one', 2)
    """
    kept = []
    for paragraph in paragraphs(text):
        words = " ".join(paragraph.split())
        if words not in seen:
            seen.add(words)
            kept.append(paragraph)
    return "\n\n".join(kept)


def position(name: str) -> float:
    """Maps a name to a number in [0, 1) that is fixed but looks random, to split data by."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Returns the version of each package."""
    return {
        package: platform.python_version()
        if package == PYTHON
        else importlib.metadata.version(_DISTRIBUTIONS.get(package, package))
        for package in packages
    }


def progress(items: Iterable[T], *, name: str) -> Iterable[T]:
    """Yields the items; the terminal shows a progress bar when they take more than two seconds."""
    # `catalogue` silences sys.stderr while TFDS prepares a data set.
    return tqdm.tqdm(items, desc=f"preparing {name}", delay=2, leave=False, file=sys.__stderr__)


def _root(package: str) -> pathlib.Path:
    if package == PYTHON:
        return pathlib.Path(sysconfig.get_paths()["stdlib"])
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None, f"{package} is a dependency of dlcore"
    return pathlib.Path(spec.origin).parent
