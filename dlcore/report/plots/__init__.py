"""Draws pictures: each function takes arrays and writes one PNG.

Colours are those of Okabe and Ito (2008) and of Matplotlib's perceptually uniform maps, which
readers who are colour-blind can tell apart.
"""

from dlcore.report.plots.attention import plot_attention as plot_attention
from dlcore.report.plots.bars import plot_bars as plot_bars
from dlcore.report.plots.classes import plot_calibration as plot_calibration
from dlcore.report.plots.classes import plot_confusion as plot_confusion
from dlcore.report.plots.images import plot_filters as plot_filters
from dlcore.report.plots.images import plot_mistakes as plot_mistakes
from dlcore.report.plots.images import plot_rows as plot_rows
from dlcore.report.plots.lines import plot_gradient_by_distance as plot_gradient_by_distance
from dlcore.report.plots.lines import plot_gradient_norms as plot_gradient_norms
from dlcore.report.plots.lines import plot_lines as plot_lines
from dlcore.report.plots.lines import plot_metric as plot_metric
from dlcore.report.plots.units import plot_gates as plot_gates
