"""Models of text: n-grams, recurrent nets and transformers over token ids and lengths.

Classifiers and taggers are a `dlcore.types.SequenceModel`, language models a `Generator`,
translators a `Translator`.
"""

from dlcore.models.text.classifier import POOLINGS as POOLINGS
from dlcore.models.text.classifier import TextClassifier as TextClassifier
from dlcore.models.text.encoder import RecurrentEncoder as RecurrentEncoder
from dlcore.models.text.gpt2 import load_gpt2 as load_gpt2
from dlcore.models.text.language_model import LanguageModel as LanguageModel
from dlcore.models.text.ngram import NGram as NGram
from dlcore.models.text.parallel import TENSOR_PARALLEL as TENSOR_PARALLEL
from dlcore.models.text.recurrent_translator import BRIDGES as BRIDGES
from dlcore.models.text.recurrent_translator import RecurrentTranslator as RecurrentTranslator
from dlcore.models.text.tagger import Tagger as Tagger
from dlcore.models.text.transformer_translator import TransformerTranslator as TransformerTranslator
from dlcore.models.text.vector_to_sequence import VectorToSequence as VectorToSequence
