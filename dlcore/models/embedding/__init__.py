"""Vectors of words: how they are learnt, and what they are worth."""

from dlcore.models.embedding.objectives import OBJECTIVES as OBJECTIVES
from dlcore.models.embedding.objectives import objective as objective
from dlcore.models.embedding.subwords import compose as compose
from dlcore.models.embedding.subwords import subword_ids as subword_ids
from dlcore.models.embedding.updates import initial_sums as initial_sums
from dlcore.models.embedding.updates import row_adagrad as row_adagrad
from dlcore.models.embedding.updates import word2vec_step as word2vec_step
from dlcore.models.embedding.vectors import ANALOGIES as ANALOGIES
from dlcore.models.embedding.vectors import CASES as CASES
from dlcore.models.embedding.vectors import Found as Found
from dlcore.models.embedding.vectors import WordSpace as WordSpace
from dlcore.models.embedding.word2vec import ARCHITECTURES as ARCHITECTURES
from dlcore.models.embedding.word2vec import Word2Vec as Word2Vec
