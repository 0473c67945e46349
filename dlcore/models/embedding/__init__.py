"""Word vectors: word2vec and GloVe, sub-words, and the space of the learnt vectors."""

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
from dlcore.models.embedding.parallel import TENSOR_PARALLEL
from dlcore.models.embedding.subwords import compose
from dlcore.models.embedding.updates import initial_sums, row_adagrad, word2vec_step
from dlcore.models.embedding.vectors import ANALOGIES, CASES, Answer, WordSpace
from dlcore.models.embedding.word2vec import ARCHITECTURES, Word2Vec

__all__ = [
    "ANALOGIES",
    "ARCHITECTURES",
    "CASES",
    "OBJECTIVES",
    "TENSOR_PARALLEL",
    "Answer",
    "GloveTiles",
    "Tables",
    "Word2Vec",
    "WordSpace",
    "compose",
    "fitted_biases",
    "glove_cost",
    "glove_step",
    "glove_tables",
    "glove_vectors",
    "initial_squares",
    "initial_sums",
    "objective",
    "row_adagrad",
    "word2vec_step",
]
