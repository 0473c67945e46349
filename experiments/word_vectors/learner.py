"""The ways to learn word vectors, as the task sees them."""

import abc
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from dlcore.data.text import TokenFile
from dlcore.types import Batch, Metrics, Params, Step


class Feed(NamedTuple):
    """The batches of a corpus.

    Attributes:
        train: the training batches from a given step on, without end.
        test: one pass over what the vectors are measured on.
        epoch_steps: the steps of a pass over the corpus.
        per_step: how many of which unit a step takes in.
    """

    train: Callable[[int], Iterator[Batch]]
    test: Callable[[], Iterator[Batch]]
    epoch_steps: int
    per_step: dict[str, int]


class Learner(abc.ABC):
    """A model of word vectors with a step of its own.

    Attributes:
        rate: its learning rate, where none is given.
    """

    rate: float

    @abc.abstractmethod
    def feed(self, config: Any, tokens: TokenFile, folder: pathlib.Path) -> Feed:
        """Returns the batches of a corpus; `folder` is for files that are made of it."""

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Params:
        """Returns the first tables."""

    @abc.abstractmethod
    def optimizer(self) -> optax.GradientTransformation:
        """Returns the transformation whose state is that of the step."""

    @abc.abstractmethod
    def step(self, config: Any) -> Step:
        """Returns the step."""

    @abc.abstractmethod
    def metrics(self, params: Params, batch: Batch) -> Metrics:
        """Returns the means of an evaluation."""

    @abc.abstractmethod
    def vectors(self, params: Params) -> np.ndarray:
        """Returns the vectors of all words, float32 [V, D]."""

    def unseen(self, params: Params, words: Sequence[str]) -> np.ndarray | None:
        """Returns vectors of words that the corpus lacks, float32 [n, D]; None without any way.

        The vector of a word without any part that could stand for it is 0.
        """
        return None
