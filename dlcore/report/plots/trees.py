"""Draws trees."""

import pathlib
from collections.abc import Sequence

from dlcore.report.plots.figure import COLOURS, new_figure, save, shorten

_LEAF, _LEVEL = 0.55, 0.42  # inches


def plot_tree(
    parents: Sequence[int],
    words: Sequence[str | None],
    labels: Sequence[str],
    colours: Sequence[int],
    path: pathlib.Path,
    *,
    title: str = "",
    legend: Sequence[str] = (),
) -> None:
    """Draws a tree with its root on top, a coloured label at each node and words below.

    Args:
        parents: the number of each node's parent, -1 of the root; nodes of one parent are in order.
        words: the word of each node, None for none.
        labels: the text at each node.
        colours: the number of each node's colour.
        path: the PNG to write.
        title: the title above the picture.
        legend: what each colour means.

    Raises:
        ValueError: when the lengths differ.
    """
    if not len(parents) == len(words) == len(labels) == len(colours) > 0:
        raise ValueError("a tree needs a parent, a word, a label and a colour for each node")
    x, y = places(parents)
    width, height = max(x) + 1, max(y) + 1
    figure = new_figure(max(width * _LEAF, 4), (height + 2) * _LEVEL + 0.6)
    axis = figure.subplots()
    axis.set_axis_off()
    axis.set_title(shorten(title, int(max(width * _LEAF, 4) * 9)), fontsize=10)
    for node, parent in enumerate(parents):
        if parent >= 0:
            axis.plot(
                [x[node], x[parent]], [-y[node], -y[parent]], color="#999999", lw=0.8, zorder=1
            )
    for node, label in enumerate(labels):
        shade = COLOURS[colours[node] % len(COLOURS)]
        box = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": shade, "lw": 1.2}
        name = shorten(label, 10)
        axis.text(
            x[node], -y[node], name, color=shade, ha="center", va="center", fontsize=7, bbox=box
        )
        if (word := words[node]) is not None:
            axis.text(
                x[node], -y[node] - 0.35, shorten(word, 10), ha="center", va="top", fontsize=7
            )
    for number, meaning in enumerate(legend):
        axis.plot([], [], "s", color=COLOURS[number % len(COLOURS)], label=meaning)
    if legend:
        axis.legend(loc="upper left", fontsize=7, frameon=False)
    axis.set_xlim(-0.7, width - 0.3)
    axis.set_ylim(-height - 0.2, 0.6)
    save(figure, path)


def places(parents: Sequence[int]) -> tuple[list[float], list[int]]:
    """Returns the position of each node: leaves side by side, others above their children's middle.

    >>> places([-1, 0, 0])
    ([0.5, 0.0, 1.0], [0, 1, 1])
    """
    children: list[list[int]] = [[] for _ in parents]
    for node, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(node)
    depth, x = [0] * len(parents), [0.0] * len(parents)
    rest, order, leaves = [parents.index(-1)], [], 0
    while rest:
        node = rest.pop()
        order.append(node)
        rest += reversed(children[node])
        for child in children[node]:
            depth[child] = depth[node] + 1
        if not children[node]:
            x[node] = float(leaves)
            leaves += 1
    for node in reversed(order):
        if kids := children[node]:
            x[node] = (x[kids[0]] + x[kids[-1]]) / 2
    return x, depth
