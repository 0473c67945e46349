"""Models of text: n-grams, recurrent nets and transformers over token ids and lengths.

Classifiers and taggers are a `dlcore.types.SequenceModel`, language models a `Generator`,
translators a `Translator`.
"""

from dlcore.models.text.arpa import read_arpa, write_arpa
from dlcore.models.text.classifier import TextClassifier
from dlcore.models.text.encoder import RecurrentEncoder, TransformerEncoder
from dlcore.models.text.gpt2 import load_gpt2
from dlcore.models.text.language_model import LanguageModel
from dlcore.models.text.ngram import NGram
from dlcore.models.text.parallel import TENSOR_PARALLEL
from dlcore.models.text.pooling import POOLINGS
from dlcore.models.text.recurrent_translator import BRIDGES, RecurrentTranslator
from dlcore.models.text.siamese import HEADS, SIAMESE_POOLINGS, SiameseEncoder, cosines
from dlcore.models.text.tagger import Tagger
from dlcore.models.text.transformer_translator import TransformerTranslator
from dlcore.models.text.vector_to_sequence import VectorToSequence

__all__ = [
    "BRIDGES",
    "HEADS",
    "POOLINGS",
    "SIAMESE_POOLINGS",
    "TENSOR_PARALLEL",
    "LanguageModel",
    "NGram",
    "RecurrentEncoder",
    "RecurrentTranslator",
    "SiameseEncoder",
    "Tagger",
    "TextClassifier",
    "TransformerEncoder",
    "TransformerTranslator",
    "VectorToSequence",
    "cosines",
    "load_gpt2",
    "read_arpa",
    "write_arpa",
]
