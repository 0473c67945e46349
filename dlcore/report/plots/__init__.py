"""Draws pictures: each function takes arrays and writes one PNG.

Colours are those of Okabe and Ito (2008) and of Matplotlib's perceptually uniform maps, which
readers who are colour-blind can tell apart.
"""

from dlcore.report.plots.attention import plot_attention
from dlcore.report.plots.bars import plot_bars
from dlcore.report.plots.captions import plot_captions, plot_look
from dlcore.report.plots.classes import plot_calibration, plot_confusion
from dlcore.report.plots.images import plot_filters, plot_mistakes, plot_rows
from dlcore.report.plots.lines import (
    plot_gradient_by_distance,
    plot_gradient_norms,
    plot_lines,
    plot_metric,
    plot_rate_range,
)
from dlcore.report.plots.memory import plot_memory
from dlcore.report.plots.retrieval import plot_found_pictures, plot_found_texts
from dlcore.report.plots.rolls import plot_rolls
from dlcore.report.plots.trees import plot_tree
from dlcore.report.plots.units import plot_gates

__all__ = [
    "plot_attention",
    "plot_bars",
    "plot_calibration",
    "plot_captions",
    "plot_confusion",
    "plot_filters",
    "plot_found_pictures",
    "plot_found_texts",
    "plot_gates",
    "plot_gradient_by_distance",
    "plot_gradient_norms",
    "plot_lines",
    "plot_look",
    "plot_memory",
    "plot_metric",
    "plot_mistakes",
    "plot_rate_range",
    "plot_rolls",
    "plot_rows",
    "plot_tree",
]
