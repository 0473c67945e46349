"""Scores trained systems on a task: word analogies, word similarity, searches, codes, forecasts.

These scores rate a whole system at a task with an answer; `dlcore.metrics` has the metrics that can
be merged over batches. The simple baselines that a system must beat are here as well.

>>> import numpy as np
>>> from dlcore.evaluation import find_period
>>> find_period(np.sin(np.arange(240) * 2 * np.pi / 24)[:, None], longest=100)
24
"""

from dlcore.evaluation.bag_of_words import BagOfWords
from dlcore.evaluation.codes import linear_probe, nearest_neighbours
from dlcore.evaluation.forecasts import (
    Forecast,
    ForecastScores,
    LinearMap,
    find_period,
    fit_linear,
    persistence,
    score_forecasts,
    seasonal_naive,
)
from dlcore.evaluation.latents import LatentUse, active_units, latent_use
from dlcore.evaluation.parzen import Parzen, parzen, parzen_log_densities
from dlcore.evaluation.search_errors import SearchErrors, search_errors
from dlcore.evaluation.word_questions import read_analogies, read_similarities
from dlcore.evaluation.word_vectors import evaluate_analogies, evaluate_similarities

__all__ = [
    "BagOfWords",
    "Forecast",
    "ForecastScores",
    "LatentUse",
    "LinearMap",
    "Parzen",
    "SearchErrors",
    "active_units",
    "evaluate_analogies",
    "evaluate_similarities",
    "find_period",
    "fit_linear",
    "latent_use",
    "linear_probe",
    "nearest_neighbours",
    "parzen",
    "parzen_log_densities",
    "persistence",
    "read_analogies",
    "read_similarities",
    "score_forecasts",
    "search_errors",
    "seasonal_naive",
]
