"""The checks of good practice before a long run: layers, receptive fields, gradients."""

from dlcore.check.activations import activation_deviations as activation_deviations
from dlcore.check.gradients import GradientReport as GradientReport
from dlcore.check.gradients import check_gradients as check_gradients
from dlcore.check.layers import Row as Row
from dlcore.check.layers import layer_table as layer_table
from dlcore.check.layers import render as render
from dlcore.check.layers import render_parameters as render_parameters
from dlcore.check.layers import totals as totals
from dlcore.check.model import Finding as Finding
from dlcore.check.model import check_model as check_model
from dlcore.check.model import verdict as verdict
from dlcore.check.overfit import Verdict as Verdict
from dlcore.check.overfit import dead_units as dead_units
from dlcore.check.overfit import overfit_one_batch as overfit_one_batch
from dlcore.check.receptive_field import expected_boxes as expected_boxes
from dlcore.check.receptive_field import measured_receptive_field as measured_receptive_field
from dlcore.check.recurrent import gate_statistics as gate_statistics
from dlcore.check.recurrent import gradient_by_distance as gradient_by_distance
