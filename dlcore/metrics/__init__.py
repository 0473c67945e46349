"""Metrics that merge: see `Mean`."""

from dlcore.metrics.classification import classification as classification
from dlcore.metrics.language import language_scores as language_scores
from dlcore.metrics.mean import Mean as Mean
from dlcore.metrics.spans import f1 as f1
from dlcore.metrics.spans import marks_spans as marks_spans
from dlcore.metrics.spans import span_scores as span_scores
