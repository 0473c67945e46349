"""word2vec: skip-gram and CBOW by any objective, with n-grams of characters or without."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore import launch
from dlcore.data import Arrays, evaluation_batches
from dlcore.data.text import (
    TokenFile,
    WordStream,
    held_out_pairs,
    keep_probabilities,
    subword_ids,
)
from dlcore.data.text.word_stream import SUBSAMPLINGS
from dlcore.launch.fields import LARGEST, choice, integer, number, switch
from dlcore.models.embedding import (
    OBJECTIVES,
    Word2Vec,
    compose,
    initial_sums,
    objective,
    word2vec_step,
)
from dlcore.types import Batch, Metrics, Params, Step

from .learner import Feed, Learner

_TOGETHER = 4096  # words whose vectors are made at once
_WITH_NOISE = {"objective": ("negative_sampling", "nce")}
_WITH_SUBWORDS = {"subwords": (True,)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Word2VecGroup(launch.Group):
    """The objective, the windows and the updates of word2vec."""

    title = "word2vec"

    objective: str = choice("negative_sampling", OBJECTIVES, "objective that is maximised")
    fixed_window: bool = switch(False, "give all windows the width --window; else 1 to that, drawn")
    original_gradient: bool = switch(
        False,
        "give each word of a mean the mean's whole gradient, as the first program does",
        when={"model": ("cbow_mean",)},
    )
    subwords: bool = switch(False, "make vectors of character n-grams too, as fastText does")
    shortest: int = integer(3, 1, 1000, "characters of the shortest n-gram", when=_WITH_SUBWORDS)
    longest: int = integer(6, 1, 1000, "characters of the longest n-gram", when=_WITH_SUBWORDS)
    buckets: int = integer(
        100_000, 1, LARGEST, "rows of the table that n-grams share", when=_WITH_SUBWORDS
    )
    negatives: int = integer(5, 1, 10_000, "samples of noise for each pair", when=_WITH_NOISE)
    samples: int = integer(
        32, 1, 1 << 20, "samples of noise that some 128 words share", when=_WITH_NOISE
    )
    exponent: float = number(
        0.75, 0, 1, "exponent of the counts in the distribution of the noise", when=_WITH_NOISE
    )
    subsample: float = number(
        1e-3, 0, 1, "frequency above which occurrences of a word are left out; 0 keeps all"
    )
    subsampling: str = choice(
        "program",
        SUBSAMPLINGS,
        "formula of --subsample",
        when={"subsample": lambda threshold: threshold > 0},
    )
    micro_batch: int = integer(1024, 1, LARGEST, "about how many words lie between two updates")
    pairs: int = integer(5000, 1, LARGEST, "held-out pairs to measure with")


class Word2VecLearner(Learner):
    """Skip-gram or CBOW.

    Args:
        config: the configuration.
        words: of the corpus, the most frequent first.
        counts: how often each occurs, int [V].
    """

    rate = 0.37

    def __init__(self, config: Any, words: Sequence[str], counts: np.ndarray):
        self._grams = {
            "shortest": config.shortest,
            "longest": config.longest,
            "buckets": config.buckets,
        }
        noise = {name: getattr(config, name) for name in ("negatives", "samples", "exponent")}
        self.model = Word2Vec(
            objective(config.objective, counts, **noise),
            config.features,
            config.model,
            config.window,
            config.original_gradient,
            subword_ids(words, **self._grams) if config.subwords else None,
            config.buckets if config.subwords else 0,
        )
        sharing = self.model.sharing
        self._micro_batch = sharing * max(1, round(config.micro_batch / sharing))

    def feed(self, config: Any, tokens: TokenFile, folder: pathlib.Path) -> Feed:
        """Returns stretches of the corpus, and pairs of words that are held out of it."""
        stream = WordStream(
            tokens.tokens,
            keep_probabilities(tokens.counts, threshold=config.subsample, rule=config.subsampling),
            size=-(-config.batch_size // self._micro_batch) * self._micro_batch,
            window=config.window,
            fixed=config.fixed_window,
            held_out=config.validation,
            seed=config.seed,
        )
        held = stream.held_out[0] if len(stream.held_out) else 0
        pairs = held_out_pairs(
            stream.stretch(int(held), epoch=0),
            window=config.window,
            size=config.pairs,
            negatives=config.negatives,
            noise=tokens.counts.astype(float) ** config.exponent,
            together=config.model != "skip_gram",
            seed=config.seed,
        )
        return Feed(
            stream.batches,
            lambda: evaluation_batches(Arrays(pairs), 512),
            stream.steps_per_epoch,
            {"words": tokens.raw_words // stream.steps_per_epoch},
        )

    def init(self, key: jax.Array) -> Params:
        return self.model.init(key)

    def optimizer(self) -> optax.GradientTransformation:
        return optax.GradientTransformation(initial_sums, optax.identity().update)

    def step(self, config: Any) -> Step:
        rate = config.learning_rates()
        return word2vec_step(
            self.model,
            learning_rate=lambda step: jnp.asarray(rate(step)),
            micro_batch=self._micro_batch,
        )

    def metrics(self, params: Params, batch: Batch) -> Metrics:
        return self.model.held_out(params, batch)

    def vectors(self, params: Params) -> np.ndarray:
        size = len(self.model.objective.counts)
        vectors, tables = jax.jit(self.model.vectors), jax.tree.map(jnp.asarray, params)
        parts = np.array_split(np.arange(size), 1 + size // _TOGETHER)
        return np.concatenate([np.asarray(vectors(tables, part)) for part in parts])

    def unseen(self, params: Params, words: Sequence[str]) -> np.ndarray | None:
        if self.model.subwords is None:
            return None
        table, size = jnp.asarray(params["input"]), len(self.model.objective.counts)
        ids = jnp.asarray(subword_ids(words, **self._grams))
        return np.asarray(compose(table, table[size:], jnp.full(len(words), -1), ids))
