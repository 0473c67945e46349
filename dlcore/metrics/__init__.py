"""Metrics that merge: see `Mean`."""

from dlcore.metrics.classification import classification as classification
from dlcore.metrics.language import language_scores as language_scores
from dlcore.metrics.mean import Mean as Mean
