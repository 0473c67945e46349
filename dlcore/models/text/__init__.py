"""Models of text: n-grams, and recurrent nets over token ids and lengths."""

from dlcore.models.text.classifier import POOLINGS as POOLINGS
from dlcore.models.text.classifier import TextClassifier as TextClassifier
from dlcore.models.text.encoder import RecurrentEncoder as RecurrentEncoder
from dlcore.models.text.language_model import LanguageModel as LanguageModel
from dlcore.models.text.ngram import NGram as NGram
from dlcore.models.text.shapes import VectorToSequence as VectorToSequence
from dlcore.models.text.tagger import Tagger as Tagger
