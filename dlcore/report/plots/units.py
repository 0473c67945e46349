"""Draws the behaviour of single units. Shapes: H units."""

import pathlib
from collections.abc import Mapping

import numpy as np

from dlcore.report.plots.figure import COLOURS, dress, new_figure, save


def plot_gates(gates: Mapping[str, tuple[np.ndarray, np.ndarray]], path: pathlib.Path) -> None:
    """Draws how often each unit's gates are shut and open (Karpathy et al. 2015, figure 2).

    Gates near the origin take all values; those near a corner are always shut or always open.

    Args:
        gates: for each gate by its name the shares of steps at which each unit's gate is shut and
            at which it is open, (H,) each, as `dlcore.check.gate_statistics` returns them.
        path: the PNG to write.
    """
    figure = new_figure(3.4 * len(gates) + 0.4, 3.9)
    axes = figure.subplots(1, len(gates), squeeze=False, sharey=True)[0]
    for axis, (name, (shut, opened)) in zip(axes, gates.items(), strict=True):
        axis.plot([0, 100], [100, 0], color="#999999", linewidth=0.8, linestyle="--")
        axis.scatter(
            100 * shut, 100 * opened, s=22, color=COLOURS[0], alpha=0.45, linewidths=0, zorder=3
        )
        axis.set(
            title=f"{name[:1].upper()}{name[1:]} gate",
            xlabel="steps shut, below 0.1 (%)",
            xlim=(-3, 103),
            ylim=(-3, 103),
            aspect="equal",
        )
        dress(axis)
    axes[0].set_ylabel("steps open, above 0.9 (%)")
    save(figure, path)
