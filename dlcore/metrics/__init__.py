"""Metrics; those of type `Mean` can be merged over batches and devices."""

from dlcore.metrics.classification import (
    Calibration,
    ClassScores,
    calibration,
    class_scores,
    classification,
)
from dlcore.metrics.detection import (
    COCOScores,
    ErrorScores,
    Judgement,
    VOCScores,
    coco_scores,
    error_scores,
    landmark_scores,
    voc_scores,
)
from dlcore.metrics.labels import average_precision, label_class_scores, label_scores
from dlcore.metrics.language import language_scores
from dlcore.metrics.spans import (
    SPAN_FORMS,
    SPAN_SCHEMES,
    convert_spans,
    f1,
    span_scheme,
    span_scores,
)
from dlcore.metrics.translation import (
    BLEU_TOKENIZERS,
    LengthScore,
    SentenceScores,
    TranslationScores,
    bleu_by_length,
    bleu_tokenizer,
    check_bleu_tokenizer,
    sentence_scores,
    translation_scores,
)

__all__ = [
    "BLEU_TOKENIZERS",
    "COCOScores",
    "Calibration",
    "ClassScores",
    "ErrorScores",
    "Judgement",
    "LengthScore",
    "SPAN_FORMS",
    "SPAN_SCHEMES",
    "SentenceScores",
    "TranslationScores",
    "VOCScores",
    "average_precision",
    "bleu_by_length",
    "bleu_tokenizer",
    "calibration",
    "check_bleu_tokenizer",
    "class_scores",
    "classification",
    "coco_scores",
    "convert_spans",
    "error_scores",
    "f1",
    "label_class_scores",
    "label_scores",
    "landmark_scores",
    "language_scores",
    "sentence_scores",
    "span_scheme",
    "span_scores",
    "translation_scores",
    "voc_scores",
]
