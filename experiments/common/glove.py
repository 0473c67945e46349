"""The flags and the training of GloVe."""

import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax
from absl import flags

from dlcore.data.sources import Batch
from dlcore.data.text import TokenFile, count_cooccurrences
from dlcore.models.embedding import (
    TENSOR_PARALLEL,
    GloveTiles,
    fitted_biases,
    glove_cost,
    glove_step,
    glove_tables,
    initial_squares,
)
from dlcore.types import Metrics, TrainState
from experiments.common.flags import adopt, say
from experiments.common.runs import settle_steps
from experiments.common.training import Feed, Job

FLAGS = flags.FLAGS
_CELLS = 1 << 18  # that are evaluated at once
# The flags that GloVe alone reads, and that it does not read.
OF_GLOVE = ("x_max", "alpha", "weighting", "combine", "memory")
NOT_OF_GLOVE = (
    "objective", "fixed_window", "original_gradient", "subwords", "shortest", "longest", "buckets",
    "negatives", "samples", "exponent", "subsample", "subsampling", "micro_batch", "pairs",
    "batch_size", "schedule", "warmup_steps", "validation",
)  # fmt: skip
RATE = 0.1  # of GloVe's AdaGrad, where --learning_rate is not given


def define_glove_flags() -> None:
    """Defines the flags that word2vec does not have."""
    flags.DEFINE_float("x_max", 100.0, "count from which on all cells weigh the same")
    flags.DEFINE_float("alpha", 0.75, "exponent of the weight of rarer cells")
    flags.DEFINE_enum("weighting", "harmonic", ["harmonic", "flat"], "of a pair by its distance")
    flags.DEFINE_enum(
        "combine", "sum", ["sum", "average", "word", "concatenate"], "of word and context vectors"
    )
    flags.DEFINE_float("memory", 1.0, "gigabytes for counting", 0)
    adopt(__name__)


def make_job(tokens: TokenFile, folder: pathlib.Path) -> Job:
    """Training on the counts of words that stand near each other, and the cost over all of them.

    Args:
        tokens: the corpus.
        folder: for the counts.
    """
    size, how = len(tokens.words), {"x_max": FLAGS.x_max, "alpha": FLAGS.alpha}
    cells = count_cooccurrences(
        tokens.tokens, vocabulary_size=size, window=FLAGS.window, weighting=FLAGS.weighting,
        directory=folder, memory_limit=int(FLAGS.memory * 1e9),
    )  # fmt: skip
    found = cells.rows, cells.columns, cells.values
    say(f"{len(cells.values):,} pairs of words stand within {FLAGS.window} words of each other")
    tiles = GloveTiles(*found, vocabulary_size=size, seed=FLAGS.seed)
    settle_steps(FLAGS.epochs, tiles.epoch_steps)

    biases = fitted_biases(*found, vocabulary_size=size, **how)

    def initialise(key: jax.Array) -> Any:
        sizes = {"vocabulary_size": size, "dimension": FLAGS.features}
        return {"params": glove_tables(key, biases=biases, **sizes)}

    def metric_fn(state: TrainState, batch: Batch) -> tuple[Metrics, None]:
        return {"loss": glove_cost(state.params, **batch, **how)}, None

    def all_cells() -> Iterator[Batch]:
        for start in range(0, len(cells.values), _CELLS):
            part = [np.asarray(x[start : start + _CELLS]) for x in found]
            padded = (np.pad(x, (0, _CELLS - len(x))) for x in part)
            yield dict(zip(("rows", "columns", "values"), padded, strict=True))

    rate = FLAGS.learning_rate if FLAGS["learning_rate"].present else RATE
    return Job(
        name="word_vectors", initialise=initialise, loss_fn=None, metric_fn=metric_fn,
        metric=("loss", "min"), per_step={"cells": len(cells.values) // tiles.epoch_steps},
        feed=Feed(tiles.batches, all_cells), step=glove_step(rate=rate, **how),
        tx=optax.GradientTransformation(initial_squares, optax.identity().update),
        rules=TENSOR_PARALLEL,
    )  # fmt: skip
