"""What lies in the source files of installed packages. Nothing is imported or executed.

The content changes with the versions of the packages, which `versions` records.
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

# The standard library, among the names of packages.
PYTHON = "python"
# Tests, copies of other packages, other packages, and generated tables.
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
    """A source file; its name is that of its package and its path therein."""

    name: str
    text: str


class Documented(NamedTuple):
    """The docstrings of one definition at the top of a module, or of the module itself.

    Attributes:
        name: of the definition, "" for the module.
        text: paragraphs with blank lines between them.
    """

    name: str
    text: str


def sources(package: str) -> Iterator[Source]:
    """The readable source files of a package, in the order of their names."""
    root = _root(package)
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not any(_LEFT_OUT.fullmatch(part) for part in parts):
            try:
                yield Source("/".join((package, *parts)), path.read_text("utf-8"))
            except (OSError, UnicodeDecodeError):
                continue


def documented(source: Source, seen: set[str]) -> list[Documented]:
    """The docstrings of a file by definition, without the paragraphs that were seen before.

    Docstrings are copied and inherited, and their paragraphs even more often: each is kept where it
    stands first.

    Args:
        source: the file; one that does not parse has none.
        seen: the paragraphs of earlier files, which this call extends.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            module = ast.parse(source.text)
    except (SyntaxError, ValueError):
        return []
    found = [("", [ast.get_docstring(module)])] + [
        (top.name, [ast.get_docstring(node) for node in _definitions(top)])
        for top in module.body
        if isinstance(top, _DEFINITIONS)
    ]
    texts = ((name, unseen("\n\n".join(filter(None, docs)), seen)) for name, docs in found)
    return [Documented(name, text) for name, text in texts if text]


def _definitions(top: ast.AST) -> Iterator[_Definition]:
    """The definitions in a definition, itself among them, as `ast.walk` comes by them.

    Expressions hold none, and most of a tree is expressions.
    """
    nodes = collections.deque([top])
    while nodes:
        node = nodes.popleft()
        if isinstance(node, _DEFINITIONS):
            yield node
        for block in ("body", "handlers", "cases", "orelse", "finalbody"):
            nodes.extend(getattr(node, block, ()))


def paragraphs(text: str) -> list[str]:
    """The parts of a text between blank lines."""
    return [part.rstrip() for part in _BLANK_LINES.split(text) if part.strip()]


def unseen(text: str, seen: set[str]) -> str:
    """The paragraphs of a text that differ, in more than white space, from all seen ones."""
    kept = []
    for paragraph in paragraphs(text):
        words = " ".join(paragraph.split())
        if words not in seen:
            seen.add(words)
            kept.append(paragraph)
    return "\n\n".join(kept)


def position(name: str) -> float:
    """A number in [0, 1) that is fixed by a name and looks random, to split by."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of each package."""
    return {
        package: platform.python_version()
        if package == PYTHON
        else importlib.metadata.version(_DISTRIBUTIONS.get(package, package))
        for package in packages
    }


def progress(items: Iterable[T], *, of: str) -> Iterable[T]:
    """The same items, with a line on the terminal when they take more than two seconds."""
    # Output is silenced while TFDS prepares a data set.
    return tqdm.tqdm(items, desc=f"preparing {of}", delay=2, leave=False, file=sys.__stderr__)


def _root(package: str) -> pathlib.Path:
    if package == PYTHON:
        return pathlib.Path(sysconfig.get_paths()["stdlib"])
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None, f"{package} is a dependency of dlcore"
    return pathlib.Path(spec.origin).parent
