"""word2vec: word vectors that predict the words around (Mikolov et al. 2013a, b).

A stretch of text is cut into blocks, and the scores of a block's words and of those within reach
are one small matrix product of which a band counts. Compared with pair by pair, each row is fetched
and written once for all of its pairs (Ji et al. 2016).

Shapes: P words of a micro-batch, W words of its margin on either side, B blocks of T words, C = T +
2 W words within reach of a block, D features, V vocabulary, R rows of the output table.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dlcore.errors import InputError, choose
from dlcore.metrics import Mean
from dlcore.models.embedding.objectives import Full, Objective

ARCHITECTURES = ("skip_gram", "cbow_mean", "cbow_sum")
_BLOCK = 32
_START = 0.1  # of AdaGrad's sums: gradients of the first steps are tiny and would be blown up


@dataclasses.dataclass(frozen=True, eq=False)
class Word2Vec:
    """Two tables of vectors: of words as queries, "input", and of what predicts, "output".

    - skip_gram: each word predicts each word of its window.
    - cbow_mean, cbow_sum: the mean, or the sum, of the words of a window predicts its centre.

    Attributes:
        objective: what is maximised.
        features: D.
        architecture: one of `ARCHITECTURES`.
        window: W, how far a window can reach.
        original_gradient: whether the words of a mean get the mean's whole gradient each, as the
            original program and gensim have it, and not their share of it.
    """

    objective: Objective
    features: int = 100
    architecture: str = "skip_gram"
    window: int = 5
    original_gradient: bool = False

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise choose("architecture", self.architecture, ARCHITECTURES)
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
        """T; margins must fit into the neighbouring block."""
        return max(_BLOCK, 2 * self.window)

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        """The tables: "input" [V, D] uniform in +-1/2D, "output" [R, D] zeros, as in the paper's
        program."""
        words, half = len(self.objective.counts), 0.5 / self.features
        return {
            "input": jax.random.uniform(key, (words, self.features), minval=-half, maxval=half),
            "output": jnp.zeros((self.objective.rows, self.features)),
        }

    def rows(self, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        """The rows of each table that a micro-batch reads, int, flat.

        Args:
            batch: "words" int [P + 2 W], see `loss`.
            key: of the noise.
        """
        words = batch["words"]
        inner = words[self.window : len(words) - self.window]
        queries, targets = (inner, words) if self.architecture == "skip_gram" else (words, inner)
        return {
            "input": queries,
            "output": self.objective.rows_of(targets).reshape(-1),
            "others": self.objective.others(key),
        }

    def loss(
        self,
        vectors: Mapping[str, jax.Array],
        batch: Mapping[str, jax.Array],
        others: jax.Array,
    ) -> Mean:
        """The mean loss of the pairs of a micro-batch, in nats.

        Args:
            vectors: those that `rows` names, [n, D] for each of its names.
            batch: "words" int [P + 2 W]; "sentences" int [P + 2 W], equal for words of the same
                sentence and -1 at padding; "reach" int [P + 2 W], how far each word's window goes.
                P is a multiple of T.
            others: int [K] of `rows`.
        """
        inside = slice(self.window, -self.window)
        sentence, reach = batch["sentences"], batch["reach"]
        pairs = self._window_pairs(sentence[inside], self._within_reach(sentence), reach[inside])
        features = self.features
        if self.architecture == "skip_gram":
            queries = vectors["input"].reshape(-1, self.block, features)
            targets = self._within_reach(batch["words"])[:, None]
            rows = vectors["output"].reshape(len(sentence), -1, features)
            scores = jnp.einsum("btd,bcld->btcl", queries, self._within_reach(rows))
        else:
            summed = jnp.einsum(
                "btc,bcd->btd", pairs.astype(float), self._within_reach(vectors["input"])
            )
            queries, pairs = self._mean(summed, pairs.sum(-1)), pairs.any(-1, keepdims=True)
            targets = batch["words"][inside].reshape(-1, self.block, 1)
            rows = vectors["output"].reshape(*targets.shape, -1, features)
            scores = jnp.einsum("btd,btcld->btcl", queries, rows)
        if self.objective.rows_of(targets).ndim == targets.ndim:
            scores = scores[..., 0]
        flat = queries.reshape(-1, features)
        other_scores = (flat @ vectors["others"].T).reshape(*queries.shape[:2], -1)
        total = self.objective.loss(scores, other_scores, pairs, targets, others[None, None])
        return Mean(total, pairs.sum().astype(total.dtype))

    def held_out(
        self, tables: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]
    ) -> dict[str, Mean]:
        """How well the tables predict n frozen pairs.

        Args:
            tables: of `init`.
            batch: "queries" int [n, J], -1 at padding; "targets" int [n]; "noise" int [n, k];
                "weight" [n].

        Returns:
            "loss", the objective's, of noise that is drawn once and for all; and "nats", -log P of
            the target by the softmax over all words (by the tree where that is the objective).
        """
        real = (batch["queries"] >= 0)[..., None]
        summed = jnp.where(real, tables["input"][batch["queries"]], 0).sum(1)
        queries = summed if self.architecture == "cbow_sum" else summed / real.sum(1)
        objective, output = self.objective, tables["output"]
        targets, pairs = batch["targets"][:, None, None], (batch["weight"] > 0)[:, None, None]
        rows = objective.rows_of(targets)
        scores = jnp.einsum("nd,n...d->n...", queries, output[rows])
        others = batch["noise"][:, None]
        other_scores = jnp.einsum("nd,nkd->nk", queries, output[batch["noise"]])[:, None]
        weight = pairs.sum().astype(float)

        def all_words(objective: Objective) -> Mean:
            every = objective.others(jax.random.key(0))
            against = (queries @ output[every].T)[:, None]
            total = objective.loss(scores, against, pairs, targets, every[None, None])
            return Mean(total, weight)

        if objective.exact:
            exact = all_words(objective)
            return {"loss": exact, "nats": exact}
        total = objective.loss(scores, other_scores, pairs, targets, others)
        return {"loss": Mean(total, weight), "nats": all_words(Full(objective.counts))}

    def _mean(self, summed: jax.Array, counts: jax.Array) -> jax.Array:
        """The queries of sums [B, T, D] over windows of so many words [B, T]."""
        if self.architecture == "cbow_sum":
            return summed
        mean = summed / jnp.maximum(counts, 1)[..., None]
        if self.original_gradient:  # The value of the mean with the gradient of the sum.
            return summed + jax.lax.stop_gradient(mean - summed)
        return mean

    def _within_reach(self, flat: jax.Array) -> jax.Array:
        """What blocks see of [P + 2 W, ...]: [B, C, ...].

        Neighbouring blocks share their margins. Slices have a cheaper gradient than an index.
        """
        more = -len(flat) % self.block
        padded = jnp.pad(flat, [(0, more)] + [(0, 0)] * (flat.ndim - 1))
        blocks = padded.reshape(-1, self.block, *flat.shape[1:])
        return jnp.concatenate([blocks[:-1], blocks[1:, : 2 * self.window]], axis=1)

    def _window_pairs(
        self, sentence: jax.Array, sentences_within_reach: jax.Array, reach: jax.Array
    ) -> jax.Array:
        """Which words are in each other's window, bool [B, T, C]."""
        place = jnp.arange(self.block)[:, None]
        away = jnp.abs(jnp.arange(self.block + 2 * self.window)[None] - self.window - place)[None]
        sentence, reach = (x.reshape(-1, self.block, 1) for x in (sentence, reach))
        together = (sentence == sentences_within_reach[:, None]) & (sentence >= 0)
        return together & (away > 0) & (away <= reach)


def row_adagrad(
    table: jax.Array, sums: jax.Array, rows: jax.Array, gradients: jax.Array, rate: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """AdaGrad (Duchi et al. 2011) with one accumulator for each row of a table.

    Only the rows named are read and written. A row that is named more than once gets the sum of its
    gradients, each over the root of the accumulator that has all of their squares.

    Args:
        table: [R, D].
        sums: [R], the mean squares of the gradients so far.
        rows: int [n].
        gradients: [n, D].
        rate: the learning rate.

    Returns:
        The new table and sums.
    """
    sums = sums.at[rows].add(jnp.square(gradients).mean(-1))
    scale = rate * jax.lax.rsqrt(sums[rows] + 1e-10)
    return table.at[rows].add(-scale[:, None] * gradients), sums


def word2vec_step(
    model: Word2Vec, *, learning_rate: Callable[[jax.Array], jax.Array], micro_batch: int
) -> Any:
    """A training step: micro-batches of P words one after the other, each with an update.

    Args:
        model: the model; the state's parameters are its tables, and `opt_state` what
            `initial_sums` gives.
        learning_rate: of `row_adagrad`, a function of the steps taken; about 0.3.
        micro_batch: P, a multiple of the model's T.

    Returns:
        A step (state, batch) -> (state, metrics) for batches of n P words between margins of W.
    """
    if micro_batch % model.block:
        raise InputError(f"micro-batches of {micro_batch} words are not blocks of {model.block}")
    margin = 2 * model.window

    def step(state: Any, batch: Mapping[str, jax.Array]) -> tuple[Any, dict[str, Mean]]:
        count = (len(batch["words"]) - margin) // micro_batch
        keys = jax.random.split(jax.random.fold_in(state.rng, state.step), count)

        def update(carry: Any, xs: tuple[jax.Array, jax.Array]) -> tuple[Any, Mean]:
            (tables, sums), (start, key) = carry, xs
            part = {
                name: jax.lax.dynamic_slice_in_dim(leaf, start, micro_batch + margin)
                for name, leaf in batch.items()
            }
            rows = model.rows(part, key)
            vectors = {
                name: tables["output" if name == "others" else name][ids]
                for name, ids in rows.items()
            }

            def total(vectors: Any) -> tuple[jax.Array, jax.Array]:
                mean = model.loss(vectors, part, rows["others"])
                return mean.total, mean.weight

            (value, weight), slopes = jax.value_and_grad(total, has_aux=True)(vectors)
            named = {
                "input": (rows["input"], slopes["input"]),
                "output": (
                    jnp.concatenate([rows["output"], rows["others"]]),
                    jnp.concatenate([slopes["output"], slopes["others"]]),
                ),
            }
            rate = learning_rate(state.step)
            new = {
                name: row_adagrad(tables[name], sums[name], *given, rate)
                for name, given in named.items()
            }
            tables, sums = ({name: pair[i] for name, pair in new.items()} for i in (0, 1))
            return (tables, sums), Mean(value, weight)

        starts = jnp.arange(count) * micro_batch
        (tables, sums), losses = jax.lax.scan(
            update, (state.params, state.opt_state), (starts, keys)
        )
        loss = Mean(losses.total.sum(), losses.weight.sum())
        state = state.replace(step=state.step + 1, params=tables, opt_state=sums)
        return state, {"loss": loss}

    return step


def initial_sums(tables: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The accumulators of `row_adagrad` before the first step."""
    return {name: jnp.full(len(table), _START) for name, table in tables.items()}
