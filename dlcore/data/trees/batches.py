"""A split of trees, which become arrays when they are gathered.

The leaves of a tree lie side by side, and its inner nodes in steps of a few nodes (`schedule`).
Each step needs only earlier ones, so one scan over the steps serves trees of all shapes. Each row
of a batch is a tree, which may lie on any device.

Shapes: N trees of a split, n gathered trees, L leaves, S steps, W nodes of a step, C children.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dlcore.data.sources import Batch
from dlcore.data.trees.schedule import schedule
from dlcore.data.trees.tree import Tree

# The shares of the trees that fit into each bucket, by their steps.
_SHARES = (0.25, 0.5, 0.75, 0.9, 0.97, 1.0)
SLOTS = 2  # W; trees of sentences are about as deep as they have pairs of inner nodes


class Trees:
    """A split of trees that is held in memory.

    Args:
        trees: N trees, none with more than C children at a node.
        words: maps words to their ids.
        classes: the number of each label; an unknown label is class K, which no model predicts.
        children: C.
        inner_words: whether inner nodes have words, as in dependency trees.
        slots: W.
        buckets: the pairs (S, L) that batches can have, both in rising order; the last holds all
            trees. None chooses six by quantiles of the steps.

    Attributes:
        lengths: the number of steps of each tree, at least 1, int32 [N].
        nodes: the nodes of each tree, in the order of a gathered row: leaves, then inner nodes.
    """

    def __init__(
        self,
        trees: Sequence[Tree],
        words: Callable[[Sequence[str]], np.ndarray],
        classes: dict[str, int],
        *,
        children: int,
        inner_words: bool = False,
        slots: int = SLOTS,
        buckets: Sequence[tuple[int, int]] | None = None,
    ):
        self.slots, self.width, self.inner_words = slots, children, inner_words
        numbers: dict[str | None, int] = {name: number for name, number in classes.items()}
        numbers[None] = -1
        rows = [_rows(tree, slots, children) for tree in trees]
        self.nodes = [row[0] for row in rows]
        leaves = np.array([row[1] for row in rows], np.int64)
        self._leaves = leaves
        self.lengths = np.array([max(1, len(row[2]) // slots) for row in rows], np.int32)
        self._leaf_starts = np.cumsum(leaves) - leaves
        inner = np.array([len(row[2]) for row in rows], np.int64)
        self._inner, self._inner_starts = inner, np.cumsum(inner) - inner
        self._children = np.concatenate([np.zeros((0, children), np.int32), *(r[2] for r in rows)])
        self._root = np.array([row[3] for row in rows], np.int32)
        flat: dict[str, list[Any]] = {"leaf": [], "inner": []}
        names: dict[str, list[int]] = {"leaf": [], "inner": []}
        for tree, (order, count, _, _) in zip(trees, rows, strict=True):
            for kind, part in (("leaf", order[:count]), ("inner", order[count:])):
                flat[kind] += ["" if n is None else tree.words[n] or "" for n in part]
                names[kind] += [
                    -1 if n is None else numbers.get(tree.labels[n], len(classes)) for n in part
                ]
        self._words = words(flat["leaf"])
        self._inner_words = words(flat["inner"]) if inner_words else None
        self._labels = {kind: np.array(found, np.int32) for kind, found in names.items()}
        self.buckets = tuple(buckets or _buckets(self.lengths, leaves))

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, indices: np.ndarray, *, among: np.ndarray | None = None) -> Batch:
        """Gathers the trees at `indices` [n].

        Args:
            indices: the numbers of the trees.
            among: the trees whose largest number of steps decides L and S; None for `indices`.

        Returns:
            "words", int32 [n, L], the words of the leaves; "leaves", int32 [n], the number of
            leaves; "children", int32 [n, S, W, C], the positions of the children of each inner
            node, where 0 is no child, 1 to L are the leaves, and the S W inner nodes follow;
            "label", int32 [n, L + S W], -1 for none; "root", int32 [n], the root's index among the
            labels; and "inner_words", int32 [n, S, W], where the split has them.
        """
        all_rows = indices if among is None else among
        most = int(self.lengths[all_rows].max()), int(self._leaves[all_rows].max())
        steps, leaves = next(
            bucket for bucket in self.buckets if bucket[0] >= most[0] and bucket[1] >= most[1]
        )
        inner = steps * self.slots

        def padded(kind: str, flat: np.ndarray, fill: int) -> np.ndarray:
            starts, counts, width = (
                (self._leaf_starts, self._leaves, leaves)
                if kind == "leaf"
                else (self._inner_starts, self._inner, inner)
            )
            found = np.full((len(indices), width, *flat.shape[1:]), fill, np.int32)
            for row, index in enumerate(indices):
                start, count = starts[index], counts[index]
                found[row, :count] = flat[start : start + count]
            return found

        children = padded("inner", self._children, 0)
        children = np.where(children < 0, leaves - children, children)
        labels = [padded(kind, flat, -1) for kind, flat in self._labels.items()]
        root = self._root[indices]
        shape = (len(indices), steps, self.slots)
        batch: Batch = {
            "words": padded("leaf", self._words, 0),
            "leaves": self._leaves[indices].astype(np.int32),
            "children": children.reshape(*shape, self.width),
            "label": np.concatenate(labels, axis=1),
            "root": np.where(root < 0, leaves - root - 1, root - 1).astype(np.int32),
        }
        if self._inner_words is not None:
            batch["inner_words"] = padded("inner", self._inner_words, 0).reshape(shape)
        return batch

    def places(self, index: int, leaves: int) -> dict[int, int]:
        """Returns the position of each node of a tree in a gathered row of L = `leaves` leaves."""
        count = self._leaves[index]
        return {
            node: place if place < count else int(place - count + leaves)
            for place, node in enumerate(self.nodes[index])
            if node is not None
        }

    def subset(self, indices: np.ndarray) -> "Trees":
        """Returns the trees at `indices` [n] alone, in the same buckets."""
        subset = copy.copy(self)
        for name in ("lengths", "_leaves", "_leaf_starts", "_inner", "_inner_starts", "_root"):
            setattr(subset, name, getattr(self, name)[indices])
        subset.nodes = [self.nodes[index] for index in indices]
        return subset


def _rows(tree: Tree, slots: int, width: int) -> tuple[list[int | None], int, np.ndarray, int]:
    """Returns nodes in the order of a row, the number of leaves, children by node, and the root.

    In children and root, k means leaf k, from 1 on, and -k means inner node k.
    """
    children = tree.children()
    order: list[int | None] = [node for node, kids in enumerate(children) if not kids]
    place = {node: at for at, node in enumerate(order, 1)}
    leaves = len(order)
    table: list[list[int]] = []
    for step in schedule(tree, slots):
        for node in step:
            place[node] = -(len(table) + 1)
            order.append(node)
            kids = [place[child] for child in children[node]]
            table.append(kids + [0] * (width - len(kids)))
        order += [None] * (slots - len(step))
        table += [[0] * width] * (slots - len(step))
    found = np.array(table, np.int32).reshape(-1, width)
    return order, leaves, found, place[tree.root]


def _buckets(steps: np.ndarray, leaves: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Returns the steps and leaves of each bucket, in rising order of both."""
    if not len(steps):
        return ((1, 1),)
    bounds = sorted({*np.quantile(steps, _SHARES, method="higher").tolist()})
    return tuple((int(bound), int(leaves[steps <= bound].max())) for bound in bounds)


def powers(largest: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Returns the steps and leaves of buckets that are powers of two, up to the largest trees.

    So predictions for many trees share few compiled programs.

    >>> powers((3, 9))
    ((1, 16), (2, 16), (4, 16))
    """
    steps, leaves = ((most - 1).bit_length() for most in largest)
    return tuple((1 << power, 1 << leaves) for power in range(steps + 1))
