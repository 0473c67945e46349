"""The ways to make vectors of sentences, as the task sees them.

Shapes: B pairs of a batch, T tokens of a sentence, n sentences, D numbers of a vector.
"""

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore.data.text import Vectors, Vocabulary, WordStream, keep_probabilities
from dlcore.launch.text import with_table
from dlcore.models.embedding import (
    ParagraphVectors,
    Word2Vec,
    common_direction,
    initial_sums,
    mean_vectors,
    objective,
    sif_weights,
    without_direction,
    word2vec_step,
)
from dlcore.models.embedding.objectives import NegativeSampling
from dlcore.models.text import RecurrentEncoder, SiameseEncoder, cosines
from dlcore.nn.sequences import length_mask
from dlcore.types import Aux, Batch, Mean, Params, PyTree, Step, Variables

SPECIALS = 2  # tokens of a vocabulary that are no words
_TOGETHER = 256  # sentences whose vectors the common direction sums up at once


class Feed(NamedTuple):
    """The batches that a model of running text is learnt from.

    Attributes:
        train: the batches from a given step on, without end.
        epoch_steps: the steps of a pass over the lines.
        words: of all lines, those of a pass.
    """

    train: Callable[[int], Iterator[Batch]]
    epoch_steps: int
    words: int


class Learner(abc.ABC):
    """A model of sentences.

    Attributes:
        rate: its learning rate, where none is given.
        epochs: its passes over the data, where none are given.
    """

    rate: float
    epochs: float

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Variables:
        """Returns the first variables."""

    @abc.abstractmethod
    def encode(self, variables: Variables, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
        """Returns the vectors of sentences, tokens int [n, T] and lengths int [n], as [n, D]."""

    def compare(self, variables: Variables, u: jax.Array, v: jax.Array) -> jax.Array:
        """Returns the similarities of vectors [B, D], [B]: their cosines."""
        return cosines(u, v)

    def measures(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        """Returns what an evaluation keeps of each pair: "similarity" [B], and perhaps others."""
        u, v = (
            self.encode(variables, batch["tokens"][:, side], batch["length"][:, side])
            for side in (0, 1)
        )
        return {"similarity": self.compare(variables, u, v)}

    def word_vectors(self, variables: Variables) -> np.ndarray | None:
        """Returns the vectors of the words that have some [V, D]; None for no such table."""
        return None


class TextLearner(Learner):
    """A model of running text: word2vec whose tables make vectors of sentences.

    Args:
        config: the configuration.
        counts: how often each word occurs in the lines, int [V].
    """

    model: Word2Vec
    fixed: tuple[str, ...] = ()

    def __init__(self, config: Any, counts: np.ndarray):
        self._config, self._counts = config, np.maximum(counts, 1)
        self._noise = objective(
            "negative_sampling",
            counts,
            negatives=config.negatives,
            samples=config.samples,
            exponent=config.exponent,
        )

    @property
    def _micro_batch(self) -> int:
        sharing = self.model.sharing
        return sharing * max(1, round(self._config.micro_batch / sharing))

    def feed(self, lines: Sequence[np.ndarray]) -> Feed:
        """Returns the batches of lines, each the ids of its words, -1 at unknown ones."""
        config, end = self._config, np.array([-1], np.int32)
        kept = [part for ids in lines for part in (ids[ids >= 0], end)]
        tokens = np.concatenate(kept)
        words = len(tokens) - len(lines)
        stream = WordStream(
            tokens,
            keep_probabilities(self._counts, threshold=config.subsample, rule="program"),
            size=-(-config.words // self._micro_batch) * self._micro_batch,
            window=self.model.window,
            seed=config.seed,
        )
        return Feed(stream.batches, stream.steps_per_epoch, words)

    def init(self, key: jax.Array) -> Variables:
        return {"params": self.model.init(key)}

    def optimizer(self) -> optax.GradientTransformation:
        return optax.GradientTransformation(initial_sums, optax.identity().update)

    def step(self, config: Any) -> Step:
        rate = config.learning_rates()
        return word2vec_step(
            self.model,
            learning_rate=lambda step: jnp.asarray(rate(step)),
            micro_batch=self._micro_batch,
            fixed=self.fixed,
        )


class WordLearner(TextLearner):
    """Means of the vectors of words that skip-gram learns, plain ones or those of SIF.

    Args:
        config: the configuration.
        counts: how often each word occurs in the lines, int [V].
        sentences: words int [n, L] of training sentences, -1 at padding, of which SIF finds the
            frequencies of words and the common direction.
        table: vectors of all words that learning starts from, [V, D]; None draws them.
    """

    rate, epochs = 0.37, 5.0

    def __init__(
        self, config: Any, counts: np.ndarray, sentences: np.ndarray, table: np.ndarray | None
    ):
        super().__init__(config, counts)
        self.model = Word2Vec(self._noise, config.embedding_size, "skip_gram", config.window)
        self._table = table
        self._weights: np.ndarray | None = None
        if config.model == "sif":
            # Those of the corpus would be of another kind of text.
            own = np.bincount(sentences[sentences >= 0], minlength=len(counts))
            self._weights = sif_weights(own, a=config.sif_a)
        rows = -(-len(sentences) // _TOGETHER) * _TOGETHER
        filled = np.pad(sentences, ((0, rows - len(sentences)), (0, 0)), constant_values=-1)
        self._sentences = filled.reshape(-1, _TOGETHER, filled.shape[1])
        if config.freeze_embeddings:
            self.fixed, self.epochs = ("input",), 0.0

    def init(self, key: jax.Array) -> Variables:
        tables = self.model.init(key)
        if self._table is not None:
            tables["input"] = tables["input"].at[: len(self._table)].set(self._table)
        return {"params": tables}

    def encode(self, variables: Variables, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
        table = variables["params"]["input"]
        vectors = mean_vectors(table, words_of(tokens, lengths), self._weights)
        if self._weights is None:
            return vectors

        def moment(total: jax.Array, words: jax.Array) -> tuple[jax.Array, None]:
            each = mean_vectors(table, words, self._weights)
            return total + jnp.einsum("nd,ne->de", each, each), None

        start = jnp.zeros((table.shape[1],) * 2, table.dtype)
        total, _ = jax.lax.scan(moment, start, jnp.asarray(self._sentences))
        return without_direction(vectors, common_direction(total))

    def word_vectors(self, variables: Variables) -> np.ndarray:
        return np.asarray(variables["params"]["input"])[: len(self._counts)]


class ParagraphLearner(TextLearner):
    """Vectors of paragraphs, each line being one; those of other sentences are inferred.

    Args:
        config: the configuration.
        counts: how often each word occurs in the lines, int [V].
        paragraphs: the number of lines.
    """

    rate, epochs = 0.37, 20.0

    def __init__(self, config: Any, counts: np.ndarray, paragraphs: int):
        super().__init__(config, counts)
        assert isinstance(self._noise, NegativeSampling)
        self.model: ParagraphVectors = ParagraphVectors(
            self._noise,
            config.embedding_size,
            config.model,
            1 if config.unread("window") else config.window,
            paragraphs=paragraphs,
        )

    def encode(self, variables: Variables, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
        return self.model.infer(
            variables["params"],
            words_of(tokens, lengths),
            passes=self._config.passes,
            rate=self._config.infer_rate,
            key=jax.random.key(self._config.seed),
        )

    def measures(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        found = super().measures(variables, batch)
        if "rows" in batch:
            table = variables["params"]["paragraphs"]
            found["learnt"] = cosines(*(table[batch["rows"][:, side]] for side in (0, 1)))
        return found


class SiameseLearner(Learner):
    """A recurrent encoder that is trained on the scores.

    Args:
        config: the configuration.
        vocabulary: of the sentences.
        table: vectors of all tokens that training starts from, [V, D]; None draws them.
    """

    rate, epochs = 2e-3, 10.0

    def __init__(self, config: Any, vocabulary: Vocabulary, table: np.ndarray | None):
        self._table = table
        self.model = SiameseEncoder(
            RecurrentEncoder(len(vocabulary), **config.encoder_options()),
            config.pooling,
            config.head,
            config.shortcut,
        )

    def init(self, key: jax.Array) -> Variables:
        pair = jnp.zeros((1, 2, 1), jnp.int32), jnp.ones((1, 2), jnp.int32)
        return with_table(self.model.init(key, *pair), self._table)

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        outputs, _ = self.model.apply(
            {"params": params, **model_state},
            batch["tokens"],
            batch["length"],
            train=True,
            rngs={"dropout": rng},
        )
        losses = self.model.losses(outputs, batch["score"])
        return Mean.of(losses, batch["weight"]), Aux(model_state, {})

    def encode(self, variables: Variables, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
        found: jax.Array = self.model.apply(variables, tokens, lengths, method="encode")
        return found

    def compare(self, variables: Variables, u: jax.Array, v: jax.Array) -> jax.Array:
        return self.model.similarity(self.model.apply(variables, u, v, method="compare"))

    def measures(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        outputs, _ = self.model.apply(variables, batch["tokens"], batch["length"])
        losses = self.model.losses(outputs, batch["score"])
        return {"similarity": self.model.similarity(outputs), "loss": losses}

    def word_vectors(self, variables: Variables) -> np.ndarray:
        table = variables["params"]["encoder"]["embedding"]["embedding"]
        return np.asarray(table)[SPECIALS:]


def words_of(tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns the rows of the words' table by tokens int [n, T]; -1 at unknown ones and padding."""
    return jnp.where(length_mask(lengths, tokens.shape[1]), jnp.maximum(tokens - SPECIALS, -1), -1)


def as_vectors(vocabulary: Vocabulary, table: np.ndarray) -> Vectors:
    """Returns the vectors of the words of a vocabulary, [V, D], to be written."""
    return Vectors([*vocabulary.tokens[SPECIALS:]], table)
