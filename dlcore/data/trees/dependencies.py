"""Reads dependency trees in the columns of CoNLL-U."""

import re
from collections.abc import Callable, Iterable, Iterator

from dlcore.data.trees.tree import Tree
from dlcore.errors import InputError

_WIDTH = 10
_FORM, _HEAD, _RELATION = 1, 6, 7
_SKIPPED = re.compile(r"\d+[-.]\d+")  # ranges and empty nodes are no nodes of the tree
_LABEL = re.compile(r"#\s*label\s*=\s*(\S+)\s*")


def parse_dependencies(
    lines: Iterable[str], place: Callable[[int], str] = lambda number: f"line {number}"
) -> Iterator[tuple[Tree, bool]]:
    """Yields the tree of each sentence, and whether a comment gives the label of its root.

    Each line has the ten columns of CoNLL-U with tabs between them; a blank line ends a sentence.
    The label of a node is its relation to its head (DEPREL), "_" for none. After a comment
    `# label = NAME` the root has that label and the other nodes have none.

    Args:
        lines: the lines, without their line ends.
        place: returns in words the place of a line, given its number from 1 on.

    Raises:
        InputError: for a line that does not have ten columns or whose ID is not the next number, a
            HEAD that is not a word of the sentence, a sentence without a root or with two, and a
            cycle.
    """
    rows: list[tuple[int, list[str]]] = []
    label: str | None = None
    for number, line in enumerate((*lines, ""), 1):
        if not line.strip():
            if rows:
                yield _tree(rows, label, place), label is not None
            rows, label = [], None
        elif line.startswith("#"):
            label = found[1] if (found := _LABEL.fullmatch(line)) else label
        else:
            cells = line.split("\t")
            if len(cells) != _WIDTH:
                raise InputError(
                    f"{place(number)} has {len(cells)} columns; a line of CoNLL-U has {_WIDTH} "
                    "with tabs between them"
                )
            if _SKIPPED.fullmatch(cells[0]):
                continue
            if cells[0] != str(len(rows) + 1):
                raise InputError(
                    f"{place(number)} has the ID {cells[0][:20]!r}; number the words of a sentence "
                    f"from 1 on, this one {len(rows) + 1}"
                )
            rows.append((number, cells))


def _tree(
    rows: list[tuple[int, list[str]]], label: str | None, place: Callable[[int], str]
) -> Tree:
    parents: list[int] = []
    for number, cells in rows:
        head = cells[_HEAD]
        if not head.isascii() or not head.isdecimal() or int(head) > len(rows):
            raise InputError(
                f"{place(number)} has the HEAD {head[:20]!r}; give the ID of a word of the "
                f"sentence, 1 to {len(rows)}, or 0 for its root"
            )
        parents.append(int(head) - 1)
    roots = [at for at, parent in enumerate(parents) if parent < 0]
    if len(roots) > 1:
        raise InputError(
            f"{place(rows[roots[1]][0])} is a second root beside {place(rows[roots[0]][0])}; give "
            "one word of a sentence the HEAD 0"
        )
    if (at := _in_cycle(parents)) is not None:
        raise InputError(
            f"{place(rows[at][0])} is on a cycle of heads; let each word lead to the root, whose "
            "HEAD is 0"
        )
    relations = [cells[_RELATION] for _, cells in rows]
    labels = [
        (label if at == roots[0] else None) if label else (None if name == "_" else name)
        for at, name in enumerate(relations)
    ]
    words = tuple(cells[_FORM] for _, cells in rows)
    return Tree(tuple(parents), words, tuple(labels), place(rows[0][0]))


def _in_cycle(parents: list[int]) -> int | None:
    """Returns a node on a cycle of parents, or None where all nodes lead to a root."""
    state = [0] * len(parents)  # 0 new, else the number of the walk that came by
    for start in range(len(parents)):
        node = start
        while node >= 0 and not state[node]:
            state[node] = start + 1
            node = parents[node]
        if node >= 0 and state[node] == start + 1:
            return node
    return None
