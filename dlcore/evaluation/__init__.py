"""Scores trained systems on a task: word analogies, word similarity, errors of a search."""

from dlcore.evaluation.search_errors import SearchErrors as SearchErrors
from dlcore.evaluation.search_errors import search_errors as search_errors
from dlcore.evaluation.word_questions import read_analogies as read_analogies
from dlcore.evaluation.word_questions import read_similarities as read_similarities
from dlcore.evaluation.word_vectors import evaluate_analogies as evaluate_analogies
from dlcore.evaluation.word_vectors import evaluate_similarities as evaluate_similarities
