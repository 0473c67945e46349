"""The register of the pictures of the glossary, their common look, and diagrams of boxes."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

# Colours that people who see few of them tell apart (Okabe & Ito 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_FILLS = {"": "#eef2f7", "in": "#dcefe6", "out": "#fde6d8", "gate": "#fff3cc", "frozen": "#dddddd"}
# A phone shows a picture at two thirds of this width, where its text can still be read.
_WIDTH = 5.4
STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
    "legend.frameon": False,
    "legend.fontsize": 9,
    "image.cmap": "gray_r",
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "dlcore",
}


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of the glossary.

    Attributes:
        name: of its file.
        terms: the entries that show it.
        alt: what it shows, for those who do not see it.
        draw: makes it.
    """

    name: str
    terms: tuple[str, ...]
    alt: str
    draw: Callable[[], Figure]


PICTURES: list[Picture] = []


def add(name: str, terms: Sequence[str], alt: str, draw: Callable[[], Figure]) -> None:
    """Registers a picture."""
    PICTURES.append(Picture(name, tuple(terms), " ".join(alt.split()), draw))


def picture(*terms: str, alt: str) -> Callable[[Callable[[], Figure]], Callable[[], Figure]]:
    """Registers the picture that a function draws, under the function's name."""

    def register(draw: Callable[[], Figure]) -> Callable[[], Figure]:
        add(draw.__name__, terms, alt, draw)
        return draw

    return register


def axes(
    columns: int = 1, rows: int = 1, *, height: float = 2.5, bare: bool = False
) -> tuple[Figure, list[Axes]]:
    """Returns a figure and its axes in reading order; bare ones have no ticks and no frame."""
    figure = Figure(figsize=(_WIDTH, height))
    found = list(np.ravel(figure.subplots(rows, columns)))
    for ax in found if bare else ():
        ax.set_axis_off()
    return figure, found


def pictures(
    images: Sequence[Any], titles: Sequence[str], *, columns: int, **options: Any
) -> Figure:
    """Returns images side by side, each under its title."""
    rows = -(-len(images) // columns)
    figure, found = axes(columns, rows, height=0.3 + rows * (_WIDTH / columns + 0.1), bare=True)
    for ax, image, title in zip(found, images, titles, strict=False):
        ax.imshow(np.asarray(image), **options)
        ax.set_title(title, fontsize=9)
    return figure


def numbers(ax: Axes, array: Any, title: str = "", *, form: str = "g", colours: Any = None) -> None:
    """Draws a table of numbers."""
    array = np.atleast_2d(np.asarray(array))
    height, width = array.shape
    for (row, column), value in np.ndenumerate(array):
        fill = "#ffffff" if colours is None else colours[row][column]
        ax.add_patch(Rectangle((column, row), 1, 1, facecolor=fill, edgecolor="#888888"))
        ax.text(column + 0.5, row + 0.5, format(value, form), ha="center", va="center", fontsize=9)
    ax.set(xlim=(-0.05, width + 0.05), ylim=(height + 0.05, -0.05), aspect="equal", title=title)
    ax.set_axis_off()


def curves(
    ax: Axes, x: Any, ys: Mapping[str, Any], *, title: str = "", xlabel: str = "", ylabel: str = ""
) -> None:
    """Draws named curves over one axis."""
    for name, y in ys.items():
        ax.plot(x, np.asarray(y), label=name)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if len(ys) > 1:
        ax.legend()


def diagram(
    ax: Axes,
    boxes: Mapping[str, tuple[float, float] | tuple[float, float, str]],
    arrows: Sequence[str] = (),
    *,
    width: float = 0.9,
    height: float = 0.5,
    fontsize: float = 9,
) -> None:
    """Draws boxes and arrows.

    Args:
        ax: the axes.
        boxes: place of the centre of each by its text, and its kind ("in", "out", "gate",
            "frozen"); what stands behind "#" makes texts different and is not shown.
        arrows: each FROM -> TO, or FROM ~> TO for one that bows around what is between.
        width: of a box.
        height: of a box.
        fontsize: of the texts.
    """
    for text, (x, y, *kind) in boxes.items():
        fill = _FILLS[kind[0] if kind else ""]
        ax.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - height / 2),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.08",
                facecolor=fill,
                edgecolor="#555555",
            )
        )
        ax.text(x, y, text.partition("#")[0], ha="center", va="center", fontsize=fontsize)
    for arrow in arrows:
        bowed = "~>" in arrow
        start, end = (boxes[name.strip()] for name in arrow.split("~>" if bowed else "->"))
        a, b = _edges(start[:2], end[:2], width, height, bowed)
        style = "arc3,rad=-0.45" if bowed else "arc3"
        shape = {"arrowstyle": "-|>", "color": "#333333", "connectionstyle": style}
        ax.annotate("", xy=b, xytext=a, arrowprops={**shape, "shrinkA": 1, "shrinkB": 1})
    xs, ys = ([place[i] for place in boxes.values()] for i in (0, 1))
    room = 0.9 if any("~>" in arrow for arrow in arrows) else 0.15
    ax.set_xlim(min(xs) - width / 2 - 0.1, max(xs) + width / 2 + 0.1)
    ax.set_ylim(min(ys) - height / 2 - 0.15, max(ys) + height / 2 + room)
    ax.set_axis_off()


def _edges(a: Any, b: Any, width: float, height: float, bowed: bool) -> tuple[Any, Any]:
    """Returns the points on the borders of two boxes between which an arrow goes."""
    if bowed:
        return (a[0], a[1] + height / 2), (b[0], b[1] + height / 2)
    dx, dy = b[0] - a[0], b[1] - a[1]
    scale = min(width / 2 / abs(dx) if dx else np.inf, height / 2 / abs(dy) if dy else np.inf)
    return (a[0] + dx * scale, a[1] + dy * scale), (b[0] - dx * scale, b[1] - dy * scale)


def of_term(term: str) -> Iterator[Picture]:
    """Yields the pictures of an entry."""
    return (one for one in PICTURES if term in one.terms)
