"""What all pictures share: how a figure is made, dressed and saved."""

import pathlib
import warnings
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def new_figure(width: float, height: float) -> Any:
    """A figure of inches that needs no display: drawn by Agg, outside of pyplot's state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def dress(axis: Any) -> None:
    """Gives an axis of lines or points a light grid and no box."""
    axis.grid(True, which="major", color="#dddddd", linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)


def save(figure: Any, path: pathlib.Path) -> None:
    """Writes the PNG. Names in scripts that the font lacks are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(path)


def shorten(name: str, most: int = 14) -> str:
    """A name that fits its place; a dollar sign in it begins no formula."""
    short = name if len(name) <= most else name[: most - 1] + "…"
    return short.replace("$", r"\$")
