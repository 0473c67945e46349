"""The checks of `--check` before a long run, which examine a model without training it.

There is a table of layers with parameters, multiply-adds and receptive fields, and checks of the
initial loss against the loss of guessing, of gradients against finite differences, of overfitting
one batch, and of dead units. Each function takes any Flax model; `check_model` calls all of them.

>>> import jax, jax.numpy as jnp
>>> from dlcore.check import layer_table, totals
>>> from dlcore.models import image_model
>>> model, images = image_model("lenet5", num_classes=10), jnp.zeros((1, 32, 32, 1))
>>> variables = model.init(jax.random.key(0), images)
>>> rows = layer_table(model.apply, variables, images)
>>> parameters, *_ = totals(rows)
>>> parameters == sum(leaf.size for leaf in jax.tree.leaves(variables))
True
"""

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
