"""The report's sections on classified trees."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dlcore.data.trees import Tree, heights
from dlcore.report import Section, picture_section
from dlcore.report.classes import class_section, confusion_section
from dlcore.report.plots import plot_bars, plot_tree

_SHOWN, _WIDEST = 4, 18  # trees that are drawn, and their most words
_HEIGHTS = 12  # bars of heights; the last one is for all above


class Classified(NamedTuple):
    """A tree, and the probabilities of the classes at its nodes, float32 [n, K]."""

    tree: Tree
    probabilities: np.ndarray


def sections(classified: Sequence[Classified], class_names: Sequence[str]) -> list[Section]:
    """Returns the sections: confusion at roots, accuracy by height, and trees with their labels.

    Args:
        classified: trees of the test.
        class_names: K names.
    """
    trees = [tree for tree, _ in classified]
    numbers = {name: number for number, name in enumerate(class_names)}
    found = [one.argmax(axis=1) for _, one in classified]
    roots = [
        (numbers[label], labels[tree.root])
        for tree, labels in zip(trees, found, strict=True)
        if (label := tree.labels[tree.root]) in numbers
    ]
    made = []
    if roots:
        wanted, given = (np.array(part) for part in zip(*roots, strict=True))
        made += [
            confusion_section(wanted, given, class_names),
            class_section(wanted, given, class_names),
        ]
    right: dict[int, list[bool]] = {}
    for tree, labels in zip(trees, found, strict=True):
        for node, height in enumerate(heights(tree)):
            if tree.labels[node] is not None:
                hit = tree.labels[node] == class_names[labels[node]]
                right.setdefault(min(height, _HEIGHTS - 1), []).append(hit)
    if right:
        names = {h: f"{h}+" if h == _HEIGHTS - 1 else str(h) for h in sorted(right)}
        bars = {name: 100 * float(np.mean(right[height])) for height, name in names.items()}
        made.append(
            picture_section(
                "Accuracy by height",
                "heights",
                lambda path: plot_bars(
                    bars,
                    path,
                    title="Nodes by their height above the leaves",
                    x="height",
                    y="accuracy, %",
                ),
            )
        )
    narrow = [n for n, tree in enumerate(trees) if 3 <= len(tree.text().split()) <= _WIDEST]
    return made + [
        _drawn(place, trees[n], found[n], class_names) for place, n in enumerate(narrow[:_SHOWN], 1)
    ]


def _drawn(number: int, tree: Tree, found: np.ndarray, class_names: Sequence[str]) -> Section:
    """Draws a tree with the labels that were found; those that are wrong have another colour."""
    labels = [class_names[one] for one in found]
    colours = [
        2 if wanted is None else int(wanted != label)
        for wanted, label in zip(tree.labels, labels, strict=True)
    ]
    legend = ("right", "wrong", "no label known")
    return picture_section(
        f"Tree {number}",
        f"tree_{number}",
        lambda path: plot_tree(
            tree.parents, tree.words, labels, colours, path, title=tree.text(), legend=legend
        ),
    )
