"""Word vectors: word2vec and GloVe, sub-words, and the space of the learnt vectors."""

from dlcore.models.embedding.glove import Tables as Tables
from dlcore.models.embedding.glove import fitted_biases as fitted_biases
from dlcore.models.embedding.glove import glove_cost as glove_cost
from dlcore.models.embedding.glove import glove_step as glove_step
from dlcore.models.embedding.glove import glove_tables as glove_tables
from dlcore.models.embedding.glove import glove_vectors as glove_vectors
from dlcore.models.embedding.glove import initial_squares as initial_squares
from dlcore.models.embedding.glove_tiles import GloveTiles as GloveTiles
from dlcore.models.embedding.objectives import OBJECTIVES as OBJECTIVES
from dlcore.models.embedding.objectives import objective as objective
from dlcore.models.embedding.parallel import TENSOR_PARALLEL as TENSOR_PARALLEL
from dlcore.models.embedding.subwords import compose as compose
from dlcore.models.embedding.subwords import subword_ids as subword_ids
from dlcore.models.embedding.updates import initial_sums as initial_sums
from dlcore.models.embedding.updates import row_adagrad as row_adagrad
from dlcore.models.embedding.updates import word2vec_step as word2vec_step
from dlcore.models.embedding.vectors import ANALOGIES as ANALOGIES
from dlcore.models.embedding.vectors import CASES as CASES
from dlcore.models.embedding.vectors import Answer as Answer
from dlcore.models.embedding.vectors import WordSpace as WordSpace
from dlcore.models.embedding.word2vec import ARCHITECTURES as ARCHITECTURES
from dlcore.models.embedding.word2vec import Word2Vec as Word2Vec
