"""Metrics; those of type `Mean` can be merged over batches and devices.

Most metrics take predictions, labels and the weights of the rows and return means by name. Metrics
that are not means over examples, such as average precision or BLEU, take all examples at once.

>>> import jax.numpy as jnp
>>> from dlcore.metrics import classification
>>> logits = jnp.array([[0.0, 2.0], [1.0, 0.0], [3.0, 0.0]])
>>> weights = jnp.array([1.0, 1.0, 0.0])  # the last row is padding
>>> means = classification(logits, jnp.array([1, 1, 1]), weights)
>>> float(means["accuracy"].compute())
0.5
"""

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
from dlcore.metrics.embeddings import distance_matrix, pair_distances
from dlcore.metrics.generative import (
    ModeScores,
    PrecisionRecall,
    frechet_distance,
    mode_scores,
    nearest,
    precision_recall,
)
from dlcore.metrics.identification import (
    Identification,
    OpenSet,
    Retrieval,
    few_shot_accuracy,
    identification,
    open_set,
    retrieval,
)
from dlcore.metrics.intervals import Estimate
from dlcore.metrics.labels import average_precision, label_class_scores, label_scores
from dlcore.metrics.language import language_scores
from dlcore.metrics.music import frame_accuracy
from dlcore.metrics.ranks import best_ranks, inner_products, rank_scores, recall_curve
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
from dlcore.metrics.verification import (
    ROC,
    Decisions,
    Pairs,
    decisions,
    roc,
    threshold_at,
    verification_pairs,
)

__all__ = [
    "BLEU_TOKENIZERS",
    "COCOScores",
    "Calibration",
    "ClassScores",
    "Decisions",
    "ErrorScores",
    "Estimate",
    "Identification",
    "Judgement",
    "LengthScore",
    "OpenSet",
    "ModeScores",
    "Pairs",
    "PrecisionRecall",
    "ROC",
    "Retrieval",
    "SPAN_FORMS",
    "SPAN_SCHEMES",
    "SentenceScores",
    "TranslationScores",
    "VOCScores",
    "average_precision",
    "best_ranks",
    "bleu_by_length",
    "bleu_tokenizer",
    "calibration",
    "check_bleu_tokenizer",
    "class_scores",
    "classification",
    "coco_scores",
    "convert_spans",
    "decisions",
    "distance_matrix",
    "error_scores",
    "f1",
    "few_shot_accuracy",
    "frame_accuracy",
    "frechet_distance",
    "identification",
    "inner_products",
    "label_class_scores",
    "label_scores",
    "landmark_scores",
    "language_scores",
    "mode_scores",
    "nearest",
    "open_set",
    "pair_distances",
    "precision_recall",
    "rank_scores",
    "recall_curve",
    "retrieval",
    "roc",
    "sentence_scores",
    "span_scheme",
    "span_scores",
    "threshold_at",
    "translation_scores",
    "verification_pairs",
    "voc_scores",
]
