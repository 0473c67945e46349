"""Groups of fields that jobs on text share, and the objects that they describe."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from dlcore.data import evaluation_batches
from dlcore.data.text import Sequences, Vocabulary, embedding_matrix, read_vectors
from dlcore.data.text.vocabulary import LEVELS, UNKNOWN
from dlcore.errors import InputError
from dlcore.launch.config import Group
from dlcore.launch.fields import LARGEST, choice, integer, number, path, switch
from dlcore.launch.process import say
from dlcore.nn.attention.positions import POSITIONS
from dlcore.nn.feed_forward import FEED_FORWARDS
from dlcore.nn.recurrent import CELLS, MERGES, Cell, cell
from dlcore.nn.remat import POLICIES
from dlcore.nn.transformer import NORMS, TransformerConfig
from dlcore.plan.walk import ApplyFn
from dlcore.types import Batch, Variables

# The path of the table within the module of a text model that has an encoder.
_TABLE = ("encoder", "embedding", "embedding")
_ANSWERED = 64  # texts in a batch that is answered
_EMBEDDINGS = {"embeddings": lambda path: path is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabularyConfig(Group):
    """The tokens of a text."""

    title = "Vocabulary"

    level: str = choice("word", LEVELS, "what a token is")
    vocab_size: int | None = integer(
        None, 3, LARGEST, "largest number of tokens in the vocabulary; default all"
    )
    min_count: int = integer(
        1, 1, LARGEST, "how often a token must occur to get into the vocabulary"
    )
    lower: bool = switch(False, "lower-case the text")

    def build_vocabulary(self, texts: str | Iterable[str]) -> Vocabulary:
        """Returns the vocabulary of running text."""
        return Vocabulary.build(
            texts,
            level=self.level,
            size=self.vocab_size,
            min_count=self.min_count,
            lower=self.lower,
        )

    def vocabulary_of_tokens(self, tokens: Iterable[str]) -> Vocabulary:
        """Returns the vocabulary of text that is already split into tokens.

        Raises:
            InputError: for a level other than "word".
        """
        if self.level != "word":
            raise InputError(f"--level={self.level} is for running text, not for tokens")
        return Vocabulary.of_tokens(
            tokens, size=self.vocab_size, min_count=self.min_count, lower=self.lower
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayersConfig(Group):
    """The embedding and the layers of a model of text."""

    title = "Model"

    layers: int = integer(1, 1, 10_000, "layers of the net")
    hidden: int = integer(128, 1, 1 << 20, "width of a layer")
    embedding_size: int = integer(128, 1, 1 << 20, "width of the embedding")
    dropout: float = number(0.1, 0, 1, "share of values dropped before each layer")
    embedding_dropout: float = number(0.0, 0, 1, "share of words dropped as a whole")

    def make_cells(self, name: str) -> tuple[Cell, ...]:
        """Returns the cells of the layers, of the named kind."""
        return tuple(cell(name, self.hidden) for _ in range(self.layers))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackConfig(Group):
    """Stacks of recurrent layers."""

    title = "Recurrent layers"

    residual: bool = switch(False, "let each layer add its input to its output")
    variational: bool = switch(False, "drop the same features at all steps")
    state_dropout: float = number(
        0.0, 0, 1, "share of the recurrent state dropped, by one mask for all steps"
    )
    candidate_dropout: float = number(
        0.0, 0, 1, "share dropped from the values that each step adds to the carry"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig(StackConfig, LayersConfig):
    """The options of models that read a whole text at once."""

    title = "Encoder"

    cell: str = choice("lstm", CELLS, "kind of the recurrent layers")
    bidirectional: bool = switch(True, "layers run in both directions")
    merge: str = choice(
        "concat",
        MERGES,
        "how the outputs of both directions are merged",
        when={"bidirectional": (True,)},
    )
    limit: int = integer(256, 1, LARGEST, "largest number of tokens of a text; the rest is cut off")
    embeddings: str | None = path(
        None, "file of vectors: word2vec or GloVe, text or binary, or fastText"
    )
    strict: bool = switch(
        False, "refuse --embeddings with any fault, instead of reading the rest", when=_EMBEDDINGS
    )
    freeze_embeddings: bool = switch(
        False, "do not train the vectors of --embeddings", when=_EMBEDDINGS
    )

    def encoder_options(self) -> dict[str, Any]:
        """Returns the arguments of a `RecurrentEncoder`."""
        return {
            "embedding_features": self.embedding_size,
            "cells": self.make_cells(self.cell),
            "bidirectional": self.bidirectional,
            "merge": self.merge,
            "residual": self.residual,
            "dropout": self.dropout,
            "variational": self.variational,
            "embedding_dropout": self.embedding_dropout,
            "state_dropout": self.state_dropout,
            "candidate_dropout": self.candidate_dropout,
        }

    def pretrained(self, vocabulary: Vocabulary, seed: int) -> np.ndarray | None:
        """Returns the table of --embeddings for a vocabulary; None without the flag.

        Raises:
            InputError: when the file cannot be read, or its vectors do not have --embedding_size
                values.
        """
        if self.embeddings is None:
            return None
        wanted = set(vocabulary.tokens)
        vectors = read_vectors(self.embeddings, wanted=wanted, strict=self.strict)
        for note in vectors.notes:
            say(note)
        table, known = embedding_matrix(vectors, vocabulary.tokens, seed=seed)
        if table.shape[1] != self.embedding_size:
            raise InputError(
                f"the vectors of {self.embeddings} have {table.shape[1]} numbers, --embedding_size "
                f"is {self.embedding_size}; set it to {table.shape[1]}"
            )
        say(f"{self.embeddings}: found vectors for {known:,} of the {len(vocabulary):,} words")
        return table

    def frozen_table(self) -> tuple[tuple[str, bool], ...]:
        """Returns which parameters are not trained, as path rules."""
        return (("/".join(_TABLE), True),) if self.freeze_embeddings else ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerGroup(Group):
    """The options of transformer blocks; `LayersConfig` has `hidden`, `layers` and `dropout`."""

    title = "Transformer"

    heads: int = integer(4, 1, LARGEST, "attention heads")
    kv_heads: int | None = integer(
        None, 1, LARGEST, "key and value heads; default as many as --heads"
    )
    feed_forward: int | None = integer(
        None, 1, LARGEST, "inner width of the feed-forward nets; default 4 times --hidden"
    )
    norm: str = choice("rms", NORMS, "normalisation")
    norm_first: bool = switch(
        True, "normalise the input of each branch (pre-norm) instead of the sums (post-norm)"
    )
    activation: str = choice("gelu", FEED_FORWARDS, "activation of the feed-forward nets")
    position: str = choice("rotary", POSITIONS, "how the model knows the positions of tokens")
    qk_norm: bool = switch(False, "normalise queries and keys")
    bias: bool = switch(False, "add biases to dense layers and norms")
    chunk: int | None = integer(
        None, 1, LARGEST, "number of keys that attention takes at once; default all"
    )
    remat: str = choice(
        "none",
        POLICIES,
        "which intermediate values the gradient computes again, to save memory",
        free=True,
    )

    def transformer_config(self, *, context: int) -> TransformerConfig:
        """Returns the `TransformerConfig` of the fields; there are `context` learned positions."""
        layers: Any = self  # a job's configuration has `LayersConfig` too
        return TransformerConfig(
            features=layers.hidden,
            layers=layers.layers,
            heads=self.heads,
            groups=self.kv_heads,
            hidden=self.feed_forward,
            norm=self.norm,
            norm_first=self.norm_first,
            activation=self.activation,
            position=self.position,
            context=context if self.position == "learned" else None,
            qk_norm=self.qk_norm,
            bias=self.bias,
            dropout=layers.dropout,
            chunk=self.chunk,
            remat=self.remat,
        )


def encode(vocabulary: Vocabulary, line: str) -> np.ndarray:
    """Returns the ids of a text; a text without tokens becomes a single unknown token."""
    ids = vocabulary.encode(line)
    return ids if len(ids) else np.array([UNKNOWN], np.int32)


def answer_batches(texts: Sequence[np.ndarray], limit: int) -> Iterator[Batch]:
    """Yields batches of the ids of texts to be answered, in order, with rows of weight 0 last.

    Their lengths are powers of two, so that texts of all lengths share few compiled programs.

    Args:
        texts: the ids of each text, at least one.
        limit: the largest number of tokens of a text; the rest is cut off.
    """
    if not texts:
        return
    longest = min(limit, max(map(len, texts)))
    buckets = [1 << power for power in range(longest.bit_length() + 1)]
    yield from evaluation_batches(Sequences(texts, limit=limit, buckets=buckets), _ANSWERED)


def not_read(texts: Sequence[np.ndarray], limit: int) -> str | None:
    """Returns in words what a model does not read of some texts; None if it reads everything.

    Args:
        texts: the ids of each text.
        limit: the largest number of tokens that it reads of a text.
    """
    cut = sum(len(ids) > limit for ids in texts)
    unknown = sum(int((ids == UNKNOWN).sum()) for ids in texts)
    parts = [
        *([f"{cut:,} of {len(texts):,} lines cut to --limit={limit} tokens"] if cut else []),
        *([f"{unknown:,} of {sum(map(len, texts)):,} tokens unknown"] if unknown else []),
    ]
    return ", ".join(parts) or None


def cut_off(parts: Mapping[str, Any], limit: int) -> str:
    """Returns in words how much --limit cuts off, to be added to a run's line on its data.

    Args:
        parts: `Sequences` or `Pairs`, by the name of their split.
        limit: the largest number of tokens of a text.
    """
    cut = {name: part.cut for name, part in parts.items() if part.cut}
    if not cut:
        return ""
    counts = ", ".join(f"{count:,} {name}" for name, count in cut.items())
    return f"; cut to --limit={limit} tokens: {counts}"


def with_table(
    variables: Variables, table: np.ndarray | None, *, within: tuple[str, ...] = ()
) -> Variables:
    """Returns a model's first variables, with a pre-trained table if there is one.

    Args:
        variables: the variables of the model.
        table: the vectors of its words.
        within: the names of the modules that the model's encoder lies in.
    """
    if table is None:
        return variables
    flat = flax.traverse_util.flatten_dict(variables)
    flat["params", *within, *_TABLE] = jnp.asarray(table)
    return flax.traverse_util.unflatten_dict(flat)


def at_full_length(model: Any) -> ApplyFn:
    """Returns a function (variables, tokens) -> the model's output, for tokens without padding."""

    def forward(variables: Variables, tokens: jax.Array) -> Any:
        return model.apply(variables, tokens, jnp.full(len(tokens), tokens.shape[1], jnp.int32))

    return forward
