"""Metrics; those of type `Mean` can be merged over batches and devices."""

from dlcore.metrics.classification import Calibration as Calibration
from dlcore.metrics.classification import ClassScores as ClassScores
from dlcore.metrics.classification import calibration as calibration
from dlcore.metrics.classification import class_scores as class_scores
from dlcore.metrics.classification import classification as classification
from dlcore.metrics.language import language_scores as language_scores
from dlcore.metrics.spans import f1 as f1
from dlcore.metrics.spans import marks_spans as marks_spans
from dlcore.metrics.spans import span_scores as span_scores
from dlcore.metrics.translation import LengthScore as LengthScore
from dlcore.metrics.translation import SentenceScores as SentenceScores
from dlcore.metrics.translation import TranslationScores as TranslationScores
from dlcore.metrics.translation import bleu_by_length as bleu_by_length
from dlcore.metrics.translation import sentence_scores as sentence_scores
from dlcore.metrics.translation import translation_scores as translation_scores
