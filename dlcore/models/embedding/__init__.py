"""Vectors of words and texts: word2vec, GloVe, sub-words, paragraphs, and the space of words."""

from dlcore.models.embedding.glove import (
    Tables,
    fitted_biases,
    glove_cost,
    glove_step,
    glove_tables,
    glove_vectors,
    initial_squares,
)
from dlcore.models.embedding.glove_tiles import GloveTiles
from dlcore.models.embedding.objectives import OBJECTIVES, objective
from dlcore.models.embedding.paragraphs import PARAGRAPH_MODELS, ParagraphVectors
from dlcore.models.embedding.parallel import TENSOR_PARALLEL
from dlcore.models.embedding.sentences import (
    common_direction,
    mean_vectors,
    sif_weights,
    without_direction,
)
from dlcore.models.embedding.subwords import compose
from dlcore.models.embedding.updates import initial_sums, row_adagrad, word2vec_step
from dlcore.models.embedding.vectors import ANALOGIES, CASES, Answer, WordSpace
from dlcore.models.embedding.word2vec import ARCHITECTURES, Word2Vec

__all__ = [
    "ANALOGIES",
    "ARCHITECTURES",
    "CASES",
    "OBJECTIVES",
    "PARAGRAPH_MODELS",
    "TENSOR_PARALLEL",
    "Answer",
    "GloveTiles",
    "ParagraphVectors",
    "Tables",
    "Word2Vec",
    "WordSpace",
    "common_direction",
    "compose",
    "fitted_biases",
    "glove_cost",
    "glove_step",
    "glove_tables",
    "glove_vectors",
    "initial_squares",
    "initial_sums",
    "mean_vectors",
    "objective",
    "row_adagrad",
    "sif_weights",
    "without_direction",
    "word2vec_step",
]
