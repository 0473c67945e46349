"""Detectors and their parts."""

from dlcore.models.detection.suppression import Detections, soft_suppress, suppress

__all__ = ["Detections", "soft_suppress", "suppress"]
