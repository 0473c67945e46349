"""Makes, styles and saves figures in the same way for all pictures."""

import pathlib
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def new_figure(width: float, height: float) -> "Figure":
    """Makes a figure with a size in inches, drawn by Agg without a display or pyplot's state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def dress(axis: "Axes") -> None:
    """Gives an axis of lines or points a light grid and no box."""
    axis.grid(True, which="major", color="#dddddd", linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)


def save(figure: "Figure", path: pathlib.Path) -> None:
    """Writes the picture as PNG or SVG, depending on the suffix of its name.

    Names in scripts that the font lacks are drawn as boxes in a PNG.
    """
    from matplotlib import rc_context

    # The words of an SVG are text, so that it is small and can be searched.
    with warnings.catch_warnings(), rc_context({"svg.fonttype": "none"}):
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        path.unlink(missing_ok=True)  # a link there may lead anywhere
        figure.savefig(path)


def shorten(name: str, most: int = 14) -> str:
    """Shortens a name to fit and escapes dollar signs, which would begin a formula.

    >>> shorten("convolution_12", 8)
    'convolu…'
    """
    short = name if len(name) <= most else name[: most - 1] + "…"
    return short.replace("$", r"\$")
