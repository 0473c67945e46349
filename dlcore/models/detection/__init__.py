"""Detectors and their parts."""

from dlcore.models.detection import anchors, coding
from dlcore.models.detection.suppression import Detections, soft_suppress, suppress

__all__ = ["Detections", "anchors", "coding", "soft_suppress", "suppress"]
