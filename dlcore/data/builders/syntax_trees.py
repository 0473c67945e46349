"""The data set of syntax trees of the standard library's expressions."""

import ast
import bisect
import collections
import io
import token as token_types
import tokenize
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

from dlcore.data.builders import installed
from dlcore.data.tfds import tfds
from dlcore.data.trees.tree import Tree

_SHORTEST, _LONGEST = 4, 40  # words of an expression
_PER_FILE = 40  # expressions, so that they come from the whole library
_KINDS = {token_types.NUMBER: "NUMBER", token_types.STRING: "STRING"}
_WORDS = (token_types.NAME, token_types.OP, *_KINDS)

# The key and the features of an example.
Example: TypeAlias = tuple[str, dict[str, str]]
Place: TypeAlias = tuple[int, int]  # line from 1 on, column from 0 on


class SyntaxTrees(tfds.core.GeneratorBasedBuilder):
    """Trees of the expressions in the standard library's modules, as the module ast parses them.

    The leaves are the words of the source, numbers and strings by their kind; the label of an inner
    node is the kind of its expression, such as Call, Attribute or BinOp, which the words below it
    decide by their order. Expressions have 4 to 40 words and no formatted strings. Modules are
    split 90 : 10 by their names; no expression occurs twice.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict({"tree": tfds.features.Text()}),
            metadata=tfds.core.MetadataDict(versions=installed.versions([installed.PYTHON])),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[Example]]:
        splits: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
        seen: set[str] = set()
        for source in installed.progress(
            [*installed.sources(installed.PYTHON)], name="syntax_trees"
        ):
            split = "test" if installed.position(source.name) < 0.1 else "train"
            found = [text for tree in expressions(source.text) if (text := tree.brackets())]
            for number in range(min(len(found), _PER_FILE)):
                text = found[number * len(found) // min(len(found), _PER_FILE)]
                if text not in seen:
                    seen.add(text)
                    splits[split].append((f"{source.name}/{number}", text))
        return {name: self._generate_examples(examples) for name, examples in splits.items()}

    def _generate_examples(self, examples: list[tuple[str, str]]) -> Iterator[Example]:
        for key, text in examples:
            yield key, {"tree": text}


class _Part(NamedTuple):
    """A node or a word of the source."""

    start: Place
    end: Place
    label: str | None
    word: str | None


def expressions(source: str) -> list[Tree]:
    """Returns the trees of the expressions of statements, in their order.

    Source that Python refuses has no trees, and neither has source with characters beyond ASCII.

    >>> [tree.brackets() for tree in expressions("total = a.b + 2 * c\\n")]
    ['(BinOp (Attribute (Name a) . b) + (BinOp (Constant NUMBER) * (Name c)))']
    """
    if not source.isascii():  # whose columns Python counts in bytes
        return []
    try:
        with warnings.catch_warnings(action="ignore"):
            module = ast.parse(source)
        words = _words(source)
    except (SyntaxError, ValueError, tokenize.TokenError):
        return []
    starts = [word.start for word in words]
    roots = [
        child
        for statement in ast.walk(module)
        if isinstance(statement, ast.stmt)
        for child in ast.iter_child_nodes(statement)
        if isinstance(child, ast.expr)
    ]
    trees = []
    for root in sorted(roots, key=lambda root: (root.lineno, root.col_offset)):
        nodes = [*ast.walk(root)]
        if any(isinstance(node, ast.JoinedStr) for node in nodes):
            continue
        parts = [_part(node) for node in nodes if hasattr(node, "lineno")]
        within = slice(*(bisect.bisect_left(starts, place) for place in parts[0][:2]))
        if _SHORTEST <= within.stop - within.start <= _LONGEST:
            trees.append(_tree(parts, words[within]))
    return trees


def _part(node: Any) -> _Part:
    end = (node.end_lineno, node.end_col_offset)
    return _Part((node.lineno, node.col_offset), end, type(node).__name__, None)


def _words(source: str) -> list[_Part]:
    return [
        _Part(token.start, token.end, None, _KINDS.get(token.type, token.string))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type in _WORDS
    ]


def _tree(nodes: list[_Part], words: list[_Part]) -> Tree:
    """Joins nodes, parents before children, and words by where they stand."""
    parts = [*nodes, *words]
    # A node stands before its first part; sorting keeps parents before children of one span.
    parts.sort(key=lambda part: (part.start, -part.end[0], -part.end[1]))
    parents: list[int] = []
    opened: list[int] = []
    for number, part in enumerate(parts):
        while opened and parts[opened[-1]].end <= part.start:
            opened.pop()
        parents.append(opened[-1] if opened else -1)
        if part.word is None:
            opened.append(number)
    # A node of one word is a leaf with a label.
    count = collections.Counter(parents)
    alone = {at for at, part in enumerate(parts) if part.word and count[parents[at]] == 1}
    alone = {at for at in alone if parents[at] >= 0}
    kept = [at for at in range(len(parts)) if at not in alone]
    new = {at: place for place, at in enumerate(kept)} | {-1: -1}
    own = {parents[at]: parts[at].word for at in alone}
    return Tree(
        [new[parents[at]] for at in kept],
        [own.get(at, parts[at].word) for at in kept],
        [parts[at].label for at in kept],
    )
