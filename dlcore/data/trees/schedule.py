"""Schedules the inner nodes of a tree in steps, so that children come before their parents."""

import heapq
from collections.abc import Sequence

from dlcore.data.trees.tree import Tree, from_the_root


def schedule(tree: Tree, slots: int) -> list[list[int]]:
    """Returns the inner nodes of each step, at most `slots` of them.

    Of the nodes whose children are done, those farthest from the root come first, which needs the
    fewest steps of all orders (Hu 1961). Leaves, which need no other node, are in no step.

    Args:
        tree: any tree.
        slots: the most nodes of a step, at least one.

    >>> chain = Tree((-1, 0, 0, 2, 2), (None, "a", None, "b", "c"), (None,) * 5)
    >>> schedule(chain, 2)
    [[2], [0]]
    """
    children, depth = tree.children(), [0] * len(tree)
    for node in from_the_root(tree):
        for child in children[node]:
            depth[child] = depth[node] + 1
    waits = [sum(bool(children[child]) for child in kids) for kids in children]
    ready = [(-depth[n], n) for n, kids in enumerate(children) if kids and not waits[n]]
    heapq.heapify(ready)
    steps = []
    while ready:
        step = [heapq.heappop(ready)[1] for _ in range(min(slots, len(ready)))]
        for parent in _parents(tree.parents, step):
            waits[parent] -= 1
            if not waits[parent]:
                heapq.heappush(ready, (-depth[parent], parent))
        steps.append(step)
    return steps


def _parents(parents: Sequence[int], step: list[int]) -> list[int]:
    return [parents[node] for node in step if parents[node] >= 0]
