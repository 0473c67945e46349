"""Trees of words as flat lists; no function here is recursive, so trees may have any depth."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

# The label that says that a node has none.
NO_LABEL = "_"
# Brackets that are words, as the Penn Treebank writes them.
BRACKETS = {"(": "-LRB-", ")": "-RRB-"}


@dataclasses.dataclass(frozen=True)
class Tree:
    """A tree of words whose nodes are numbered so that the children of a node are in order.

    Attributes:
        parents: the number of each node's parent, -1 for the root.
        words: the word of each node, None where it has none; in a constituency tree the leaves have
            one, in a dependency tree all nodes.
        labels: the label of each node, None where it has none.
        place: where the tree was read, for error messages.

    >>> Tree((-1, 0, 0), (None, "It", "works"), ("3", "2", "3")).children()
    [[1, 2], [], []]
    """

    parents: Sequence[int]
    words: Sequence[str | None]
    labels: Sequence[str | None]
    place: str = dataclasses.field(default="", compare=False)

    def __len__(self) -> int:
        return len(self.parents)

    @property
    def root(self) -> int:
        """The number of the root node."""
        return self.parents.index(-1)

    def children(self) -> list[list[int]]:
        """Returns the children of each node, in order."""
        found: list[list[int]] = [[] for _ in self.parents]
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                found[parent].append(node)
        return found

    @property
    def words_inside(self) -> bool:
        """Returns whether all nodes have a word, as in a dependency tree."""
        return all(word is not None for word in self.words)

    def text(self) -> str:
        """Returns the words in order, with spaces between them."""
        return " ".join(self.leaf_words())

    def leaf_words(self) -> list[str]:
        """Returns the words from left to right: of the leaves, or of all nodes of dependencies."""
        if self.words_inside:
            return [word or "" for word in self.words]
        children, words, open_nodes = self.children(), [], [self.root]
        while open_nodes:
            node = open_nodes.pop()
            open_nodes += reversed(children[node])
            if (word := self.words[node]) is not None:
                words.append(word)
        return words

    def brackets(self) -> str:
        """Returns the tree as brackets, which `parse_brackets` reads.

        >>> Tree((-1, 0, 0), (None, "It", ")"), ("3", None, "2")).brackets()
        '(3 It (2 -RRB-))'
        """
        children, parts = self.children(), []
        rest: list[int | str] = [self.root]
        while rest:
            node = rest.pop()
            if isinstance(node, str):
                parts.append(node)
                continue
            word, label = self.words[node], self.labels[node]
            if children[node]:
                parts.append(f"({label or NO_LABEL}")
                rest += [")", *reversed(children[node])]
                continue
            word = BRACKETS.get(word or "", word or "")
            parent = self.parents[node]
            alone = parent < 0 or len(children[parent]) == 1  # (x y) would be a leaf
            parts.append(f"({label or NO_LABEL} {word})" if label or alone else word)
        return " ".join(parts).replace(" )", ")")


class Narrow(NamedTuple):
    """A tree whose nodes were limited to a number of children.

    Attributes:
        tree: the tree, with new nodes between wide nodes and their children.
        origin: the number that each node had before, -1 for new nodes.
        wide: the number of nodes that had too many children.
    """

    tree: Tree
    origin: list[int]
    wide: int


def at_most(tree: Tree, children: int) -> Narrow:
    """Returns a tree whose nodes have at most `children` children.

    The first children of a node that has too many move under a new node without a label, which
    takes their place, and so on until there are few enough.

    Args:
        tree: any tree.
        children: the largest number of children, at least 2.

    >>> wide = Tree((-1, 0, 0, 0), (None, "a", "b", "c"), ("x", None, None, None))
    >>> at_most(wide, 2).tree.brackets()
    '(x (_ a b) c)'
    """
    kinds = tree.children()
    wide = [node for node, kids in enumerate(kinds) if len(kids) > children]
    if not wide:
        return Narrow(tree, [*range(len(tree))], 0)
    words, labels = [*tree.words], [*tree.labels]
    for node in wide:
        kids = kinds[node]
        first = kids[:children]
        for at in range(children, len(kids), children - 1):
            kinds.append(first)
            words.append(None)
            labels.append(None)
            first = [len(kinds) - 1, *kids[at : at + children - 1]]
        kinds[node] = first
    order, parents = _numbered(kinds, tree.root)
    narrow = Tree(parents, [words[n] for n in order], [labels[n] for n in order], tree.place)
    return Narrow(narrow, [n if n < len(tree) else -1 for n in order], len(wide))


def joined(
    words: Sequence[str], joins: Sequence[tuple[int, int]], label: str | None = None
) -> tuple[Tree, list[int]]:
    """Returns the tree of words that were joined two by two, and the origin of its nodes.

    Args:
        words: the words, at least one.
        joins: the two nodes of each join: the words have the numbers from 0 on, the joins follow.
            The last join is the root.
        label: the label of the root.

    >>> joined(["a", "b", "c"], [(1, 2), (0, 3)], "x")[0].brackets()
    '(x a (_ b c))'
    """
    kinds = [*([] for _ in words), *(list(pair) for pair in joins)]
    order, parents = _numbered(kinds, len(kinds) - 1)
    labels = [label, *[None] * (len(order) - 1)]
    return Tree(parents, [words[n] if n < len(words) else None for n in order], labels), order


def _numbered(children: Sequence[Sequence[int]], root: int) -> tuple[list[int], list[int]]:
    """Numbers nodes from the root on, so that the children of each node are in order.

    Returns:
        The nodes in their new order, and the new number of the parent of each.
    """
    order, rest = [], [root]
    while rest:
        order.append(node := rest.pop())
        rest += reversed(children[node])
    number = {node: at for at, node in enumerate(order)}
    parents = [-1] * len(order)
    for node in order:
        for kid in children[node]:
            parents[number[kid]] = number[node]
    return order, parents


def heights(tree: Tree) -> list[int]:
    """Returns the height of each node, 0 for leaves.

    >>> heights(Tree((-1, 0, 1, 1), (None, None, "a", "b"), (None,) * 4))
    [2, 1, 0, 0]
    """
    found = [0] * len(tree)
    for node in reversed(from_the_root(tree)):
        if (parent := tree.parents[node]) >= 0:
            found[parent] = max(found[parent], found[node] + 1)
    return found


def from_the_root(tree: Tree) -> list[int]:
    """Returns the nodes in an order in which each comes after its parent."""
    children, order = tree.children(), [tree.root]
    for node in order:
        order += children[node]
    return order
