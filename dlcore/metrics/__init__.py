"""Metrics; those of type `Mean` can be merged over batches and devices."""

from dlcore.metrics.classification import (
    Calibration,
    ClassScores,
    calibration,
    class_scores,
    classification,
)
from dlcore.metrics.language import language_scores
from dlcore.metrics.spans import f1, marks_spans, span_scores
from dlcore.metrics.translation import (
    LengthScore,
    SentenceScores,
    TranslationScores,
    bleu_by_length,
    sentence_scores,
    translation_scores,
)

__all__ = [
    "Calibration",
    "ClassScores",
    "LengthScore",
    "SentenceScores",
    "TranslationScores",
    "bleu_by_length",
    "calibration",
    "class_scores",
    "classification",
    "f1",
    "language_scores",
    "marks_spans",
    "sentence_scores",
    "span_scores",
    "translation_scores",
]
