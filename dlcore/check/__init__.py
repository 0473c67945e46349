"""The checks of good practice before a long run: layers, receptive fields, gradients."""

from dlcore.check.activations import activation_deviations
from dlcore.check.gradients import GradientReport, check_gradients
from dlcore.check.layers import Row, layer_table, render, render_parameters, totals
from dlcore.check.model import Finding, check_model, verdict
from dlcore.check.overfit import Verdict, dead_units, overfit_one_batch
from dlcore.check.receptive_field import expected_boxes, measured_receptive_field
from dlcore.check.recurrent import gate_statistics, gradient_by_distance

__all__ = [
    "Finding",
    "GradientReport",
    "Row",
    "Verdict",
    "activation_deviations",
    "check_gradients",
    "check_model",
    "dead_units",
    "expected_boxes",
    "gate_statistics",
    "gradient_by_distance",
    "layer_table",
    "measured_receptive_field",
    "overfit_one_batch",
    "render",
    "render_parameters",
    "totals",
    "verdict",
]
