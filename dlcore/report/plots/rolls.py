"""Draws piano rolls. Shapes: T steps, V pitches."""

import pathlib
from collections.abc import Mapping

import numpy as np

from dlcore.report.plots.figure import COLOURS, new_figure, save

_OCTAVE = 12


def plot_rolls(
    rolls: Mapping[str, np.ndarray],
    path: pathlib.Path,
    *,
    lowest: int,
    marked: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Draws piano rolls one below the other, all over the same pitches.

    Args:
        rolls: the bits of each piece by its title, [T, V].
        path: the PNG to write.
        lowest: the MIDI pitch of the first column.
        marked: the notes of a piece to draw in another colour, such as those that were given, by
            its title, bits [T, V].
    """
    used = np.flatnonzero(np.concatenate([*rolls.values()]).any(0))
    low, high = (used.min() - 2, used.max() + 2) if len(used) else (36, 60)
    longest = max(len(roll) for roll in rolls.values())
    figure = new_figure(min(12, max(5, 0.12 * longest + 1.5)), 2.1 * len(rolls) + 0.4)
    axes = figure.subplots(len(rolls), 1, squeeze=False, sharex=True)[:, 0]
    octaves = [n for n in range(low + lowest, high + lowest + 1) if n % _OCTAVE == 0]
    for axis, (title, roll) in zip(axes, rolls.items(), strict=True):
        others = (marked or {}).get(title, np.zeros_like(roll))
        for bits, colour in (((roll > others), COLOURS[0]), ((others > 0), COLOURS[1])):
            times, pitches = np.nonzero(bits)
            axis.barh(pitches + lowest, 1, left=times, height=0.9, color=colour, linewidth=0)
        axis.set(xlim=(0, longest), ylim=(low + lowest, high + lowest), ylabel="pitch")
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_yticks(octaves, [f"C{octave // _OCTAVE - 1}" for octave in octaves])
        axis.grid(True, axis="y", color="#dddddd", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("step")
    save(figure, path)
