"""Scores trained systems on a task: word analogies, word similarity, errors of a search, codes."""

from dlcore.evaluation.codes import linear_probe, nearest_neighbours
from dlcore.evaluation.latents import LatentUse, active_units, latent_use
from dlcore.evaluation.parzen import Parzen, parzen, parzen_log_densities
from dlcore.evaluation.search_errors import SearchErrors, search_errors
from dlcore.evaluation.word_questions import read_analogies, read_similarities
from dlcore.evaluation.word_vectors import evaluate_analogies, evaluate_similarities

__all__ = [
    "LatentUse",
    "Parzen",
    "SearchErrors",
    "active_units",
    "evaluate_analogies",
    "evaluate_similarities",
    "latent_use",
    "linear_probe",
    "nearest_neighbours",
    "parzen",
    "parzen_log_densities",
    "read_analogies",
    "read_similarities",
    "search_errors",
]
