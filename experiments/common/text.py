"""What the experiments on text share: vocabularies, recurrent encoders, pre-trained vectors."""

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlcore.data.text import Vocabulary, embedding_matrix, read_vectors
from dlcore.data.text.vocabulary import LEVELS, UNKNOWN
from dlcore.errors import InputError
from dlcore.nn.recurrent import CELLS, Cell, cell
from dlcore.train.logs import writing
from experiments.common.flags import adopt, say

FLAGS = flags.FLAGS
_TABLE = ("params", "encoder", "embedding", "embedding")


def define_recurrent_flags(
    *, hidden: int, layers: int, embedding_size: int, dropout: float
) -> None:
    """Defines the flags of an embedding and of layers with a job's defaults."""
    flags.DEFINE_integer("layers", layers, "layers of the net", 1)
    flags.DEFINE_integer("hidden", hidden, "width of a layer", 1)
    flags.DEFINE_integer("embedding_size", embedding_size, "width of the embedding", 1)
    flags.DEFINE_float("dropout", dropout, "share of values dropped before each layer", 0, 1)
    flags.DEFINE_float("embedding_dropout", 0.0, "share of words dropped whole", 0, 1)
    adopt(__name__)


def define_stack_flags() -> None:
    """Defines the flags of stacks of recurrent layers."""
    flags.DEFINE_bool("residual", False, "layers add their input to their output")
    flags.DEFINE_bool("variational", False, "drop the same features at all steps")
    flags.DEFINE_float("state_dropout", 0.0, "of the recurrent state, one mask for all steps", 0, 1)
    flags.DEFINE_float("candidate_dropout", 0.0, "of what each step adds to the carry", 0, 1)
    adopt(__name__)


def define_encoder_flags() -> None:
    """Defines the further flags of models that read a whole text at once."""
    flags.DEFINE_string("cell", "lstm", f"one of {', '.join(CELLS)}")
    flags.DEFINE_bool("bidirectional", True, "layers run in both directions")
    flags.DEFINE_integer("limit", 256, "most tokens of a text; the rest is cut off", 1)
    flags.DEFINE_string("embeddings", None, "file of vectors: word2vec or GloVe, text or binary")
    flags.DEFINE_bool("freeze_embeddings", False, "do not train the vectors of --embeddings")
    adopt(__name__)


def encoder_options() -> dict[str, Any]:
    """The arguments of a `RecurrentEncoder` that the flags describe."""
    return {
        "embedding_features": FLAGS.embedding_size, "cells": make_cells(FLAGS.cell),
        "bidirectional": FLAGS.bidirectional, "residual": FLAGS.residual,
        "dropout": FLAGS.dropout, "variational": FLAGS.variational,
        "embedding_dropout": FLAGS.embedding_dropout, "state_dropout": FLAGS.state_dropout,
        "candidate_dropout": FLAGS.candidate_dropout,
    }  # fmt: skip


def encode(vocabulary: Vocabulary, line: str) -> np.ndarray:
    """The ids of a text; one without a token is a single unknown one."""
    ids = vocabulary.encode(line)
    return ids if len(ids) else np.array([UNKNOWN], np.int32)


def pretrained(vocabulary: Vocabulary) -> np.ndarray | None:
    """The table of --embeddings for a vocabulary; None without.

    Raises:
        InputError: when the file cannot be read, or its vectors are not of --embedding_size.
    """
    if FLAGS.embeddings is None:
        if FLAGS.freeze_embeddings:
            raise InputError("--freeze_embeddings needs vectors; give them with --embeddings")
        return None
    vectors = read_vectors(FLAGS.embeddings, wanted=set(vocabulary.tokens))
    table, found = embedding_matrix(vectors, vocabulary.tokens, seed=FLAGS.seed)
    if table.shape[1] != FLAGS.embedding_size:
        raise InputError(
            f"the vectors of {FLAGS.embeddings} have {table.shape[1]} numbers, --embedding_size is "
            f"{FLAGS.embedding_size}; set it to {table.shape[1]}"
        )
    say(f"{FLAGS.embeddings}: vectors of {found:,} of the {len(vocabulary):,} words")
    return table


def with_table(variables: Any, table: np.ndarray | None) -> Any:
    """A model's first variables, with a pre-trained table if there is one."""
    if table is None:
        return variables
    flat = flax.traverse_util.flatten_dict(variables)
    flat[_TABLE] = jnp.asarray(table)
    return flax.traverse_util.unflatten_dict(flat)


def frozen() -> tuple[tuple[str, bool], ...]:
    """Which parameters are not trained, as path rules."""
    return (("/".join(_TABLE[1:]), True),) if FLAGS.freeze_embeddings else ()


def at_full_length(model: nn.Module) -> Callable[..., Any]:
    """(variables, tokens) -> what the model gives for tokens of which none is padding."""

    def forward(variables: Any, tokens: jax.Array) -> Any:
        return model.apply(variables, tokens, jnp.full(len(tokens), tokens.shape[1], jnp.int32))

    return forward


def cast(variables: Any) -> Any:
    """The variables in the type of --precision."""
    if FLAGS.precision == "float32":
        return variables
    return jax.tree.map(lambda leaf: leaf.astype(FLAGS.precision), variables)


def define_vocabulary_flags(*, level: str, size: int | None, lower: bool = False) -> None:
    """Defines the flags of the vocabulary with a job's defaults."""
    flags.DEFINE_enum("level", level, LEVELS, "what a token is")
    flags.DEFINE_integer("vocab_size", size, "most tokens of the vocabulary; default all", 3)
    flags.DEFINE_integer("min_count", 1, "rarest token of the vocabulary", 1)
    flags.DEFINE_bool("lower", lower, "lower-case the text")
    adopt(__name__)


def make_cells(name: str) -> tuple[Cell, ...]:
    """The cells of --layers layers of --hidden features."""
    return tuple(cell(name, FLAGS.hidden) for _ in range(FLAGS.layers))


def build_vocabulary(texts: str | Iterable[str]) -> Vocabulary:
    """The vocabulary that the flags describe."""
    return Vocabulary.build(
        texts, level=FLAGS.level, size=FLAGS.vocab_size, min_count=FLAGS.min_count,
        lower=FLAGS.lower,
    )  # fmt: skip


def vocabulary_of_tokens(tokens: Iterable[str]) -> Vocabulary:
    """The vocabulary that the flags describe, of text that is tokens already."""
    if FLAGS.level != "word":
        raise InputError(f"--level={FLAGS.level} is for running text; here tokens are given")
    return Vocabulary.of_tokens(
        tokens, size=FLAGS.vocab_size, min_count=FLAGS.min_count, lower=FLAGS.lower
    )


def settle_vocabulary(
    workdir: pathlib.Path, build: Callable[[], Vocabulary], name: str = "vocabulary.json"
) -> Vocabulary:
    """The vocabulary of a run: written at its start, and the same when it continues.

    Raises:
        InputError: when the vocabulary in the workdir is damaged, or is not that of the data.
    """
    path, vocabulary = workdir / name, build()
    if (workdir / "config.json").exists():
        if not path.exists():
            raise InputError(
                f"{path} is missing, without which the checkpoints beside it mean nothing; restore "
                "it, or choose another --workdir"
            )
        saved = Vocabulary.load(path)
        vocabulary.check(saved.fingerprint, owner=f"the run in {workdir}")
    elif not FLAGS.check:  # Of a run that was refused before it began, another may be there.
        with writing(workdir):
            vocabulary.save(path)
    return vocabulary
