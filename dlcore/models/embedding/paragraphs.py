"""Paragraph vectors: a vector for each text, learnt like word vectors (Le & Mikolov 2014).

    PV-DBOW   the vector of a paragraph predicts each of its words (section 2.3)
    PV-DM     its mean with the vectors of the words around predicts the word between (section 2.2)

Both are word2vec with a third table, of paragraphs, and use its batches and its step. A paragraph
is a sentence of the corpus; its row in the table is its number in the corpus.

Shapes: P words of a micro-batch, W words of its margin on either side, B blocks of T words, D
features, N paragraphs, n paragraphs of a batch, L words of the longest, K samples of noise.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from dlcore.errors import InputError
from dlcore.models.embedding.objectives import NegativeSampling
from dlcore.models.embedding.updates import START, mean_squares
from dlcore.models.embedding.word2vec import ROWS, Word2Vec, row_sums, within_reach
from dlcore.types import Mean

# The two models of Le & Mikolov 2014.
PARAGRAPH_MODELS = ("pv_dbow", "pv_dm")
_NOISE = 512  # K of an inference: enough that another draw changes a vector little


@dataclasses.dataclass(frozen=True, eq=False)
class ParagraphVectors(Word2Vec):
    """A model with tables "paragraphs" and "output", and with PV-DM "input" for words around.

    Attributes:
        objective: negative sampling.
        architecture: one of `PARAGRAPH_MODELS`.
        paragraphs: N.
    """

    objective: NegativeSampling
    architecture: str = "pv_dbow"
    paragraphs: int = 1
    architectures: ClassVar[tuple[str, ...]] = PARAGRAPH_MODELS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.paragraphs < 1:
            raise InputError(f"{self.paragraphs} paragraphs have no vectors; give 1 or more")

    @property
    def _with_words(self) -> bool:
        return self.architecture == "pv_dm"

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        """Draws the tables as word2vec does; the paragraphs' [N, D] is uniform in +-1/2D too."""
        words, paragraphs = jax.random.split(key)
        tables, half = super().init(words), 0.5 / self.features
        shape = self.paragraphs + -self.paragraphs % ROWS, self.features
        tables["paragraphs"] = jax.random.uniform(paragraphs, shape, minval=-half, maxval=half)
        if not self._with_words:
            del tables["input"]
        return tables

    def rows(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        read, targets = self._read_and_targets(batch["words"])
        rows = {
            "paragraphs": jnp.maximum(self._inner(batch["sentences"]), 0).reshape(-1),
            "output": self.objective.rows_of(targets).reshape(-1),
        }
        return {**rows, "input": read.reshape(-1)} if self._with_words else rows

    def loss(
        self,
        vectors: Mapping[str, jax.Array],
        batch: Mapping[str, jax.Array],
        others: jax.Array,
    ) -> Mean:
        """Returns the mean loss of the words of a micro-batch, in nats; see `Word2Vec.loss`."""
        read, targets = self._read_and_targets(batch["words"])
        real = self._inner(batch["sentences"]) >= 0
        queries = vectors["paragraphs"].reshape(*real.shape, self.features)
        if self._with_words:
            around = self._window_pairs(batch["sentences"], batch["reach"])
            context = vectors["input"].reshape(*read.shape, self.features)
            within = within_reach(context, 2 * self.window)
            summed = jnp.einsum("btc,bcd->btd", around.astype(within.dtype), within)
            queries = (queries + summed) / (1 + around.sum(-1))[..., None].astype(summed.dtype)
        rows = vectors["output"].reshape(*targets.shape, -1, self.features)
        scores = row_sums(queries[:, :, None] * rows)[:, :, None]
        pairs, targets = real[..., None], targets[..., None]
        return self._loss_of(queries, scores, pairs, targets, vectors["others"], others)

    def infer(
        self,
        tables: Mapping[str, jax.Array],
        words: jax.Array,
        *,
        passes: int,
        rate: float,
        key: jax.Array,
    ) -> jax.Array:
        """Returns vectors of paragraphs that were not in training, [n, D].

        The tables stay as they are, and AdaGrad moves the vector of each paragraph, starting at 0,
        by all of its words at once, at a rate that falls to 0. All paragraphs share one draw of
        noise, so that a vector depends on its own words alone. The vector of a paragraph without
        words is 0.

        Args:
            tables: the learnt tables.
            words: int [n, L], -1 at padding.
            passes: the number of updates.
            rate: the initial learning rate.
            key: the key that draws the noise.
        """
        real = words >= 0
        noise_words = self.objective.others(key, groups=-(-_NOISE // self.sharing))
        noise = tables["output"][noise_words]
        share = self.objective.negatives / len(noise_words)
        output = tables["output"][jnp.maximum(words, 0)]  # [n, L, D]
        dtype = output.dtype
        if self._with_words:
            context, around = self._contexts(tables["input"], words)
            weights = real.astype(dtype)
        else:
            # All words of a paragraph have the same query.
            context, around = jnp.zeros((len(words), 1, self.features), dtype), None
            weights = real.sum(-1, keepdims=True).astype(dtype)
        counts = 1 if around is None else 1 + around[..., None].astype(dtype)

        def cost(vectors: jax.Array) -> jax.Array:
            queries = (vectors[:, None] + context) / counts
            scores = (queries * output).sum(-1)
            others = jnp.einsum("nqd,kd->nqk", queries, noise)
            positive = jnp.where(real, jax.nn.softplus(-scores), 0).sum()
            return positive + share * (weights * jax.nn.softplus(others).sum(-1)).sum()

        def update(turn: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            vectors, sums = carry
            slopes = jax.grad(cost)(vectors)
            sums = sums + mean_squares(slopes)
            now = rate * (1 - turn / passes)
            return vectors - now * slopes * lax.rsqrt(sums), sums

        start = jnp.zeros((len(words), self.features), dtype), jnp.full((len(words), 1), START)
        return lax.fori_loop(0, passes, update, start)[0]

    def _contexts(self, table: jax.Array, words: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the sums of the words around each word [n, L, D] and their numbers [n, L]."""
        place = jnp.arange(words.shape[1])
        away = jnp.abs(place[:, None] - place[None])
        near = ((away > 0) & (away <= self.window))[None] & (words >= 0)[:, None]  # [n, L, L]
        vectors = table[jnp.maximum(words, 0)]
        return jnp.einsum("nlm,nmd->nld", near.astype(vectors.dtype), vectors), near.sum(-1)

    def _read_and_targets(self, words: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the words within reach [B + 1, T] and the predicted ones [B, T]."""
        return self._whole_blocks(words), self._inner(words)
