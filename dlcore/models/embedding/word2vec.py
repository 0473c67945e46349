"""word2vec: word vectors that predict the surrounding words (Mikolov et al. 2013a, b).

The text of a batch is cut into blocks. One small matrix product computes the scores of a block's
words with all words within reach; only a band of them counts. So each row of a table is read and
written once for all of its pairs, not once for each pair (Ji et al. 2016).

Shapes: P words of a micro-batch, W words of its margin on either side, B blocks of T words, C = T +
2 W words within reach of a block, D features, V vocabulary, R rows of the output table.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import InputError, choose
from dlcore.models.embedding.objectives import Full, Objective, Scored
from dlcore.types import Mean

# What word2vec predicts from what: a window from a word, or a word from its window.
ARCHITECTURES = ("skip_gram", "cbow_mean", "cbow_sum")
_BLOCK = 16
_SHARING = 128
ROWS = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Word2Vec:
    """A model with two tables of vectors: "input" for words as queries, "output" for targets.

    - skip_gram: each word predicts each word of its window.
    - cbow_mean, cbow_sum: the mean, or the sum, of the words of a window predicts its centre.

    Attributes:
        objective: the objective, which has the counts of the V words.
        features: D.
        architecture: one of `ARCHITECTURES`.
        window: W, the largest distance between a word and its context.
        original_gradient: whether each word of a mean gets the mean's whole gradient, as in the
            original program and gensim, and not its share of it.
        subwords: int [V, L], the character n-grams of each word from `subword_ids`, -1 at padding;
            None for none. With them the vector of a word is the mean of its own row and those of
            its n-grams (Bojanowski et al. 2017), and the input table has `buckets` more rows.
        buckets: the number of rows that the n-grams share.
    """

    objective: Objective
    features: int = 100
    architecture: str = "skip_gram"
    window: int = 5
    original_gradient: bool = False
    subwords: np.ndarray | None = None
    buckets: int = 0
    architectures: ClassVar[tuple[str, ...]] = ARCHITECTURES

    def __post_init__(self) -> None:
        if self.architecture not in self.architectures:
            raise choose("architecture", self.architecture, self.architectures)
        if self.window < 1 or self.features < 1:
            raise InputError(
                f"a window of {self.window} and {self.features} features: give 1 or more of each"
            )
        if self.original_gradient and self.architecture != "cbow_mean":
            raise InputError(
                f"the original gradient is one of cbow_mean, {self.architecture} has only one"
            )

    @property
    def block(self) -> int:
        """T, which is large enough for margins to fit into the neighbouring block."""
        return max(_BLOCK, 2 * self.window)

    @property
    def sharing(self) -> int:
        """The number of words that share samples of noise, a multiple of T.

        A greater number takes less time; a smaller number learns better.
        """
        return -(-_SHARING // self.block) * self.block

    def groups(self, words: int) -> int:
        """Returns the number of groups with their own noise into which P words are divided."""
        return 1 if self.objective.exact else max(1, words // self.sharing)

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        """Draws the tables in the same way as the paper's program.

        Returns:
            "input" [V, D], with `subwords` [V + buckets, D], uniform in +-1/2D; "output" [R, D], 0.
            Both get up to 63 more rows, which nothing reads, so that a mesh divides them evenly.
        """
        half = 0.5 / self.features
        inputs, outputs = (
            (rows + -rows % ROWS, self.features)
            for rows in (len(self.objective.counts) + self.buckets, self.objective.rows)
        )
        return {
            "input": jax.random.uniform(key, inputs, minval=-half, maxval=half),
            "output": jnp.zeros(outputs),
        }

    def rows(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Returns the rows of each table that the pairs of a micro-batch read, int, flat.

        Blocks are read as a whole, which is a few more rows than are within reach, because this is
        cheaper than padding the rows afterwards.

        Args:
            batch: "words" int [P + 2 W], see `loss`.
        """
        queries, targets = self._queries_and_targets(batch["words"])
        if self.subwords is not None:
            queries = self._parts(queries)[0]
        return {
            "input": queries.reshape(-1),
            "output": self.objective.rows_of(targets).reshape(-1),
        }

    def joined(
        self, slopes: Mapping[str, jax.Array], parts: int, words: int
    ) -> dict[str, jax.Array]:
        """Joins the gradients for parts of a micro-batch to gradients for all its `rows`.

        Where rows are read by whole blocks, neighbouring parts have read a block twice. Both
        gradients of its rows are added, so that the result does not depend on the parts.

        Args:
            slopes: for each table the gradients of the `rows` of all parts, one part after another.
            parts: their number.
            words: P / `parts`, a multiple of T.
        """
        blocks = words // self.block

        def join(rows: jax.Array) -> jax.Array:
            each = rows.reshape(parts, blocks + 1, -1, self.features)
            inner = each[:, :-1].at[1:, 0].add(each[:-1, -1])
            return jnp.concatenate([inner.reshape(-1, self.features), each[-1, -1]])

        return {
            name: join(rows) if name == self._by_whole_blocks else rows
            for name, rows in slopes.items()
        }

    def loss(
        self,
        vectors: Mapping[str, jax.Array],
        batch: Mapping[str, jax.Array],
        others: jax.Array,
    ) -> Mean:
        """Returns the mean loss of the pairs of a micro-batch, in nats.

        Args:
            vectors: the vectors of `rows`, [n, D] for each table, and "others" [K, D].
            batch: "words" int [P + 2 W]; "sentences" int [P + 2 W], equal for words of the same
                sentence and -1 at padding; "reach" int [P + 2 W], the size of each word's window.
                P is a multiple of T.
            others: int [K], the other rows of the output table, see `Objective.others`, for the
                `groups` of P words.
        """
        pairs = self._window_pairs(batch["sentences"], batch["reach"])
        read, targets = self._queries_and_targets(batch["words"])
        features, margins, inputs = self.features, 2 * self.window, vectors["input"]
        if self.subwords is not None:
            real = self._parts(read)[1]
            inputs = _mean_of(inputs.reshape(*real.shape, features), real)
        rows = vectors["output"].reshape(*targets.shape, -1, features)
        if self.architecture == "skip_gram":
            queries = inputs.reshape(-1, self.block, features)
            targets = within_reach(targets, margins)[:, None]
            scores = jnp.einsum("btd,bcld->btcl", queries, within_reach(rows, margins))
        else:
            within = within_reach(inputs.reshape(*read.shape, features), margins)
            summed = jnp.einsum("btc,bcd->btd", pairs.astype(within.dtype), within)
            queries, pairs = self._mean(summed, pairs.sum(-1)), pairs.any(-1, keepdims=True)
            targets = targets[..., None]
            scores = row_sums(queries[:, :, None] * rows)[:, :, None]
        return self._loss_of(queries, scores, pairs, targets, vectors["others"], others)

    def _loss_of(
        self,
        queries: jax.Array,
        scores: jax.Array,
        pairs: jax.Array,
        targets: jax.Array,
        other_vectors: jax.Array,
        others: jax.Array,
    ) -> Mean:
        """Returns the mean loss of pairs, given their scores [B, T, C, L], see `Scored`.

        Args:
            queries: [B, T, D].
            scores: the scores of the queries and the rows of their targets.
            pairs: bool [B, T, C].
            targets: int [B, 1, C] or [B, T, C].
            other_vectors: the vectors of `others`, [K, D].
            others: int [K], of all groups.
        """
        if self.objective.rows_of(targets).ndim == targets.ndim:
            scores = scores[..., 0]
        blocks, features = len(queries), self.features
        groups = self.groups(blocks * self.block)
        noise = other_vectors.reshape(groups, -1, features)
        other_scores = jnp.einsum(
            "gtd,gkd->gtk", queries.reshape(groups, -1, features), noise
        ).reshape(blocks, self.block, -1)
        others = jnp.repeat(others.reshape(groups, 1, -1), blocks // groups, axis=0)
        total = self.objective.loss(Scored(scores, other_scores, pairs, targets, others))
        return Mean(total, pairs.sum().astype(total.dtype))

    def held_out(
        self, tables: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]
    ) -> dict[str, Mean]:
        """Measures how well the tables predict n fixed pairs.

        Args:
            tables: the tables, see `init`.
            batch: "queries" int [n, J], -1 at padding; "targets" int [n]; "noise" int [n, k];
                "weight" [n].

        Returns:
            "loss", the loss of the objective with fixed noise; and "nats", -log P of the target by
            the softmax over all words (by the tree where that is the objective).
        """
        real = (batch["queries"] >= 0)[..., None]
        summed = jnp.where(real, self.vectors(tables, batch["queries"]), 0).sum(1)
        queries = (
            summed if self.architecture == "cbow_sum" else summed / real.sum(1).astype(summed.dtype)
        )
        objective, output = self.objective, tables["output"]
        targets, pairs = batch["targets"][:, None, None], (batch["weight"] > 0)[:, None, None]
        rows = objective.rows_of(targets)
        scores = jnp.einsum("nd,n...d->n...", queries, output[rows])
        weight = pairs.sum().astype(float)

        # A product with the whole table leaves the rows that a mesh has cut where they are.
        every = jnp.arange(len(output))
        against = jnp.where(every < objective.rows, queries @ output.T, -jnp.inf)[:, None]

        def all_words(objective: Objective) -> Mean:
            total = objective.loss(Scored(scores, against, pairs, targets, every[None, None]))
            return Mean(total, weight)

        if objective.exact:
            exact = all_words(objective)
            return {"loss": exact, "nats": exact}
        others = batch["noise"][:, None]
        other_scores = jnp.einsum("nd,nkd->nk", queries, output[batch["noise"]])[:, None]
        total = objective.loss(Scored(scores, other_scores, pairs, targets, others))
        return {"loss": Mean(total, weight), "nats": all_words(Full(objective.counts))}

    def vectors(self, tables: Mapping[str, jax.Array], words: jax.Array) -> jax.Array:
        """Returns the vectors [..., D] of words int [...]: rows of the table or means of rows."""
        if self.subwords is None:
            return tables["input"][words]
        rows, real = self._parts(words)
        return _mean_of(tables["input"][rows], real)

    def _parts(self, words: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the rows of the input table whose mean is each word's vector, and a mask.

        Both are [..., 1 + L] for words [...]; the mask is true where a row counts.
        """
        grams = jnp.asarray(self.subwords)[words]
        grams = jnp.where(grams < 0, grams, grams + len(self.objective.counts))
        rows = jnp.concatenate([words[..., None], grams], axis=-1)
        return jnp.maximum(rows, 0), rows >= 0

    def _mean(self, summed: jax.Array, counts: jax.Array) -> jax.Array:
        """Returns the queries for the sums [B, T, D] over windows with counts [B, T] of words."""
        if self.architecture == "cbow_sum":
            return summed
        mean = summed / jnp.maximum(counts, 1)[..., None].astype(summed.dtype)
        if self.original_gradient:  # The value of the mean with the gradient of the sum.
            return summed + jax.lax.stop_gradient(mean - summed)
        return mean

    @property
    def _by_whole_blocks(self) -> str:
        """The name of the table whose rows are read by whole blocks, for context words."""
        return "output" if self.architecture == "skip_gram" else "input"

    def _queries_and_targets(self, words: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the words of [P + 2 W] for the queries, and those for the targets.

        For skip-gram these are the words of blocks, [B, T], and those within reach, [B + 1, T]; for
        CBOW it is the reverse.
        """
        both = self._inner(words), self._whole_blocks(words)
        return both if self.architecture == "skip_gram" else both[::-1]

    def _inner(self, flat: jax.Array) -> jax.Array:
        """Returns the inner words of [P + 2 W] as blocks, [B, T]."""
        return flat[self.window : len(flat) - self.window].reshape(-1, self.block)

    def _whole_blocks(self, flat: jax.Array) -> jax.Array:
        """Returns all words of [P + 2 W] as blocks, [B + 1, T]."""
        return jnp.pad(flat, (0, -len(flat) % self.block)).reshape(-1, self.block)

    def _window_pairs(self, sentences: jax.Array, reach: jax.Array) -> jax.Array:
        """Returns which of P + 2 W words are in each other's window, bool [B, T, C]."""
        place = jnp.arange(self.block)[:, None]
        away = jnp.abs(jnp.arange(self.block + 2 * self.window)[None] - self.window - place)[None]
        sentence, reach = self._inner(sentences)[..., None], self._inner(reach)[..., None]
        around = within_reach(self._whole_blocks(sentences), 2 * self.window)[:, None]
        return (sentence == around) & (sentence >= 0) & (away > 0) & (away <= reach)


def within_reach(blocks: jax.Array, margins: int) -> jax.Array:
    """Extends each of blocks [B + 1, T, ...] by the first words of the next: [B, T + margins, ...].

    Slices have a cheaper gradient than indexing.
    """
    return jnp.concatenate([blocks[:-1], blocks[1:, :margins]], axis=1)


def row_sums(rows: jax.Array) -> jax.Array:
    """Sums rows [..., D] to [...] by a product, which is twice as fast here as a sum."""
    return rows @ jnp.ones(rows.shape[-1], rows.dtype)


def _mean_of(rows: jax.Array, real: jax.Array) -> jax.Array:
    """Returns the mean of those rows [..., L, D] that `real` marks."""
    counts = real.sum(-1, keepdims=True).astype(rows.dtype)
    return jnp.where(real[..., None], rows, 0).sum(-2) / counts
