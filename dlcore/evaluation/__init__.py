"""Scores trained systems on a task: word analogies, word similarity, errors of a search."""

from dlcore.evaluation.search_errors import SearchErrors, search_errors
from dlcore.evaluation.word_questions import read_analogies, read_similarities
from dlcore.evaluation.word_vectors import evaluate_analogies, evaluate_similarities

__all__ = [
    "SearchErrors",
    "evaluate_analogies",
    "evaluate_similarities",
    "read_analogies",
    "read_similarities",
    "search_errors",
]
