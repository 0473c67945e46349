"""Metrics that merge: see `Mean`."""

from dlcore.metrics.classification import classification as classification
from dlcore.metrics.mean import Mean as Mean
