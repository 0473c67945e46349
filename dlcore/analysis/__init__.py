"""What a model is and whether it is healthy: layer tables, receptive fields, checks, reports.

Everything here reads models and steps as values; nothing trains but `overfit_one_batch`.
"""

from dlcore.analysis.activations import activation_deviations as activation_deviations
from dlcore.analysis.check import Finding as Finding
from dlcore.analysis.check import check_model as check_model
from dlcore.analysis.check import render_findings as render_findings
from dlcore.analysis.cost import Cost as Cost
from dlcore.analysis.cost import compiled_cost as compiled_cost
from dlcore.analysis.gradients import GradientReport as GradientReport
from dlcore.analysis.gradients import check_gradients as check_gradients
from dlcore.analysis.layers import Row as Row
from dlcore.analysis.layers import layer_table as layer_table
from dlcore.analysis.layers import render as render
from dlcore.analysis.layers import to_csv as to_csv
from dlcore.analysis.layers import totals as totals
from dlcore.analysis.overfit import Verdict as Verdict
from dlcore.analysis.overfit import dead_units as dead_units
from dlcore.analysis.overfit import overfit_one_batch as overfit_one_batch
from dlcore.analysis.plots import plot_attention as plot_attention
from dlcore.analysis.plots import plot_bars as plot_bars
from dlcore.analysis.plots import plot_gates as plot_gates
from dlcore.analysis.plots import plot_gradient_by_distance as plot_gradient_by_distance
from dlcore.analysis.plots import plot_gradient_norms as plot_gradient_norms
from dlcore.analysis.plots import plot_lines as plot_lines
from dlcore.analysis.receptive_field import expected_boxes as expected_boxes
from dlcore.analysis.receptive_field import measured_receptive_field as measured_receptive_field
from dlcore.analysis.recurrent import gate_statistics as gate_statistics
from dlcore.analysis.recurrent import gradient_by_distance as gradient_by_distance
from dlcore.analysis.report import AttentionExample as AttentionExample
from dlcore.analysis.report import Samples as Samples
from dlcore.analysis.report import Section as Section
from dlcore.analysis.report import attention_section as attention_section
from dlcore.analysis.report import comparison_sections as comparison_sections
from dlcore.analysis.report import first_filters as first_filters
from dlcore.analysis.report import heat_section as heat_section
from dlcore.analysis.report import image_sections as image_sections
from dlcore.analysis.report import language_sections as language_sections
from dlcore.analysis.report import picture_section as picture_section
from dlcore.analysis.report import tagging_sections as tagging_sections
from dlcore.analysis.report import text_sections as text_sections
from dlcore.analysis.report import translation_sections as translation_sections
from dlcore.analysis.report import write_page as write_page
from dlcore.analysis.report import write_report as write_report
from dlcore.analysis.report.word_vectors import Neighbours as Neighbours
from dlcore.analysis.report.word_vectors import word_vector_sections as word_vector_sections
from dlcore.analysis.search_errors import SearchErrors as SearchErrors
from dlcore.analysis.search_errors import search_errors as search_errors
from dlcore.analysis.word_questions import read_analogies as read_analogies
from dlcore.analysis.word_questions import read_similarities as read_similarities
from dlcore.analysis.word_vectors import evaluate_analogies as evaluate_analogies
from dlcore.analysis.word_vectors import evaluate_similarities as evaluate_similarities
