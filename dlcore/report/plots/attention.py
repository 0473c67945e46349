"""Draws attention weights. Shapes: H heads, T output tokens, S source tokens."""

import pathlib
import textwrap
from collections.abc import Sequence

import numpy as np

from dlcore.report.plots.figure import new_figure, save, shorten

_MOST_HEADS = 16
_COLUMNS = 4
_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})


def plot_attention(
    weights: np.ndarray,
    source: Sequence[str],
    output: Sequence[str],
    path: pathlib.Path,
    *,
    title: str = "",
) -> None:
    """Draws a map of attention weights, or one for each head, all on one scale.

    To show a self-attention, pass its tokens twice. Only the first tokens of long sentences and the
    first of many heads are shown; the title says so.

    Args:
        weights: (H, T, S), at least 0.
        source: S tokens, from left to right.
        output: T tokens, from top to bottom.
        path: the PNG to write.
        title: the title above the picture.

    Raises:
        ValueError: when the weights do not fit the tokens.
    """
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 3 or weights.shape[1:] != (len(output), len(source)) or 0 in weights.shape:
        raise ValueError(
            f"weights {weights.shape} must be (H, T, S) of {len(output)} output and {len(source)} "
            "source tokens, at least one of each"
        )
    grid = len(weights) > 1
    cell, size, most = (0.13, 6, 24) if grid else (0.2, 8, 40)  # inches, points, tokens
    shown = weights[:_MOST_HEADS, :most, :most]
    heads, rows, columns = shown.shape
    across = min(heads, _COLUMNS)
    down = -(-heads // across)
    inside = across * max(columns * cell, 0.9), down * max(rows * cell, 0.9)
    names = [[_visible(token) for token in tokens] for tokens in (source[:columns], output[:rows])]
    above, left = (max(map(len, tokens)) * size / 110 + 0.1 for tokens in names)
    width = inside[0] + 0.1 * across + left + 1
    figure = new_figure(width, inside[1] + 0.3 * down * grid + above + 0.7)
    figure.suptitle(_title(title, weights.shape, shown.shape, width), fontsize=10)
    axes = figure.subplots(down, across, squeeze=False)
    for place, axis in enumerate(axes.ravel()):
        if place >= heads:
            axis.set_axis_off()
            continue
        picture = axis.imshow(shown[place], cmap="Blues", vmin=0, vmax=shown.max() or 1)
        axis.tick_params(top=True, labeltop=place < across, bottom=False, labelbottom=False)
        axis.tick_params(labelleft=place % across == 0)
        axis.set_xticks(range(columns), names[0], rotation=90, fontsize=size)
        axis.set_yticks(range(rows), names[1], fontsize=size)
        if grid:
            axis.set_xlabel(f"head {place + 1}", fontsize=8)
    bar = 0.15  # inches
    figure.colorbar(
        picture,
        ax=axes,
        label="weight",
        fraction=bar / inside[0],
        aspect=min(inside[1], 3) / bar,
        pad=0.1 / inside[0],
    )
    save(figure, path)


def _visible(token: str) -> str:
    """Shortens a token and makes its white space visible."""
    return shorten(token.translate(_VISIBLE))


def _title(title: str, whole: tuple[int, ...], shown: tuple[int, ...], width: float) -> str:
    """Writes the title and what was cut off, in lines that fit a width in inches."""
    kinds = zip(("heads", "output tokens", "source tokens"), whole, shown, strict=True)
    cuts = [f"the first {count} of {total} {kind}" for kind, total, count in kinds if count < total]
    per_line = int(width * 9)
    lines = [shorten(title, 2 * per_line), *([f"({', '.join(cuts)})"] if cuts else [])]
    return "\n".join(textwrap.fill(line, per_line) for line in lines if line)
