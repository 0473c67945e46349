"""Metrics that merge: see `Mean`."""

from dlcore.metrics.mean import Mean as Mean
