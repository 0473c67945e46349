"""GloVe: vectors fitted to the counts of words that stand near each other."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax

from dlcore import launch
from dlcore.data.text import TokenFile, count_cooccurrences, open_cooccurrences
from dlcore.launch.fields import LARGEST_NUMBER, choice, number
from dlcore.models.embedding import (
    GloveTiles,
    fitted_biases,
    glove_cost,
    glove_step,
    glove_tables,
    glove_vectors,
    initial_squares,
)
from dlcore.runtime import processes
from dlcore.types import Batch, Metrics, Params, Step

from .learner import Feed, Learner

_CELLS = 1 << 18  # that are evaluated at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class GloveGroup(launch.Group):
    """The counts, their weights and the vectors of GloVe."""

    title = "GloVe"

    x_max: float = number(100.0, 1e-6, LARGEST_NUMBER, "count above which all cells weigh the same")
    alpha: float = number(0.75, 0, 100, "exponent of the weight of rarer cells")
    weighting: str = choice(
        "harmonic", ("harmonic", "flat"), "weight of a pair of words by its distance"
    )
    combine: str = choice(
        "sum",
        ("sum", "average", "word", "concatenate"),
        "how the word vector and the context vector of a word make its vector",
    )
    memory: float = number(1.0, 1e-3, 1e6, "gigabytes for counting", free=True)


class GloveLearner(Learner):
    """GloVe, whose biases start where they alone fit the counts of a corpus best.

    Args:
        config: the configuration.
        words: of the corpus, the most frequent first.
    """

    rate = 0.1

    def __init__(self, config: Any, words: Sequence[str]):
        self._size, self._features = len(words), config.features
        self._combine = config.combine
        self._weights = {"x_max": config.x_max, "alpha": config.alpha}
        self._biases: np.ndarray | None = None

    def feed(self, config: Any, tokens: TokenFile, folder: pathlib.Path) -> Feed:
        """Returns tiles of the counted cells, and all cells, over which the cost is measured."""
        count = functools.partial(
            count_cooccurrences,
            tokens.tokens,
            vocabulary_size=self._size,
            window=config.window,
            weighting=config.weighting,
            directory=folder,
            memory_limit=int(config.memory * 1e9),
        )
        cells = processes.made_once(count, lambda: open_cooccurrences(folder))
        found = cells.rows, cells.columns, cells.values
        launch.say(
            f"{len(cells.values):,} pairs of words stand within {config.window} words of each other"
        )
        tiles = GloveTiles(*found, vocabulary_size=self._size, seed=config.seed)
        self._biases = fitted_biases(*found, vocabulary_size=self._size, **self._weights)

        def all_cells() -> Iterator[Batch]:
            for start in range(0, len(cells.values), _CELLS):
                part = [np.asarray(x[start : start + _CELLS]) for x in found]
                padded = (np.pad(x, (0, _CELLS - len(x))) for x in part)
                yield dict(zip(("rows", "columns", "values"), padded, strict=True))

        per_step = {"cells": len(cells.values) // tiles.epoch_steps}
        return Feed(tiles.batches, all_cells, tiles.epoch_steps, per_step)

    def init(self, key: jax.Array) -> Params:
        return glove_tables(
            key, vocabulary_size=self._size, dimension=self._features, biases=self._biases
        )

    def optimizer(self) -> optax.GradientTransformation:
        return optax.GradientTransformation(initial_squares, optax.identity().update)

    def step(self, config: Any) -> Step:
        return glove_step(rate=config.learning_rates(), **self._weights)

    def metrics(self, params: Params, batch: Batch) -> Metrics:
        return {"loss": glove_cost(params, **batch, **self._weights)}

    def vectors(self, params: Params) -> np.ndarray:
        return glove_vectors(params, combination=self._combine)
