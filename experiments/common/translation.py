"""The flags, texts and models of the translation job."""

import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from absl import flags

from dlcore.data.text import Pairs, ParallelText, Vocabulary, load_parallel_text
from dlcore.decode import NORMALISATIONS, Objective
from dlcore.errors import InputError, choose
from dlcore.models.text import BRIDGES, RecurrentTranslator, TransformerTranslator
from dlcore.nn.attention.registry import ATTENTIONS, attention
from dlcore.nn.recurrent import CELLS
from experiments.common.flags import adopt, say
from experiments.common.runs import few
from experiments.common.text import build_vocabulary, encode, make_cells, settle_vocabulary
from experiments.common.transformer import (
    OF_TRANSFORMERS,
    refuse,
    transformer_config,
)

FLAGS = flags.FLAGS
# How outputs are made and what becomes of them, which may change when a run continues.
DECODING = (
    "beam", "normalise", "alpha", "coverage_penalty", "min_length", "no_repeat", "n_best",
    "max_length", "average", "ensemble", "translate",
)  # fmt: skip
# Flags that transformers do not read.
_OF_RECURRENT = (
    "embedding_size", "bidirectional", "attention", "attention_window", "bridge",
    "reverse_source", "input_feeding", "coverage", "copy", "tie",
)  # fmt: skip
_MODELS = ("transformer", *CELLS)


class Task(NamedTuple):
    """What is translated.

    Attributes:
        text: the texts.
        source: the vocabulary of the sources.
        target: that of the targets; the same object where they share one.
        train: the token ids to train on.
        valid: those of a held-out part, which may be empty.
        test: those of the test.
    """

    text: ParallelText
    source: Vocabulary
    target: Vocabulary
    train: Pairs
    valid: Pairs | None
    test: Pairs


def define_translation_flags() -> None:
    """Defines the flags of the texts, the models, their training and the search."""
    flags.DEFINE_string("model", "gru", f"one of {', '.join(_MODELS)}")
    flags.DEFINE_list("languages", [], "source and target, such as en,de; default the data's own")
    flags.DEFINE_bool("shared", False, "one vocabulary and one table for both languages")
    flags.DEFINE_integer(
        "limit", 128, "most tokens of a side; longer training pairs are dropped", 2
    )
    flags.DEFINE_integer("batch_tokens", None, "target tokens per step, instead of --batch_size", 1)
    flags.DEFINE_float("label_smoothing", 0.0, "share of the target spread over all tokens", 0, 1)
    flags.DEFINE_float("scheduled_sampling", 0.0, "share of inputs that the model draws", 0, 1)
    flags.DEFINE_bool("bidirectional", True, "the encoder reads in both directions")
    flags.DEFINE_string(
        "attention", "general", f"of a recurrent decoder, one of none, {', '.join(ATTENTIONS)}"
    )
    flags.DEFINE_integer("attention_window", 10, "how far local attention looks either way", 1)
    flags.DEFINE_string(
        "bridge", "dense", f"how a recurrent decoder starts, one of {', '.join(BRIDGES)}"
    )
    flags.DEFINE_bool("reverse_source", False, "read the source backwards")
    flags.DEFINE_bool("input_feeding", False, "the decoder reads what it attended to before")
    flags.DEFINE_bool("coverage", False, "attention knows where it has been, and pays for repeats")
    flags.DEFINE_bool("copy", False, "the decoder can copy tokens of the source")
    flags.DEFINE_bool("tie", True, "one table for target embedding and output")
    flags.DEFINE_integer("beam", 5, "hypotheses that the search keeps; 1 is greedy")
    flags.DEFINE_string(
        "normalise", "average", f"log P by the length, one of {', '.join(NORMALISATIONS)}"
    )
    flags.DEFINE_float("alpha", 0.7, "exponent of --normalise=power and gnmt")
    flags.DEFINE_float("coverage_penalty", 0.0, "weight of the penalty for source left uncovered")
    flags.DEFINE_integer("min_length", 0, "fewest tokens of an output, its end included")
    flags.DEFINE_integer("no_repeat", None, "length of n-grams that may not occur twice")
    flags.DEFINE_integer("max_length", None, "most tokens of an output; default as in training", 1)
    flags.DEFINE_integer("n_best", 1, "outputs to write for each line of --translate")
    flags.DEFINE_integer("average", 1, "checkpoints whose mean is the final model", 1)
    flags.DEFINE_multi_string("ensemble", [], "workdir of a finished run that translates too")
    flags.DEFINE_string("translate", None, "text file to translate, one sentence per line")
    adopt(__name__)


def check_flags() -> None:
    """Refuses flags that the chosen model, attention or search does not read.

    Raises:
        InputError: for such flags, or an unknown model.
    """
    if FLAGS.model == "transformer":
        refuse(_OF_RECURRENT, "model")
    elif FLAGS.model in CELLS:
        refuse(OF_TRANSFORMERS, "model")
    else:
        raise choose("model", FLAGS.model, _MODELS)
    if not FLAGS.attention.startswith("local"):
        refuse(["attention_window"], "attention")
    if FLAGS.attention == "none":
        refuse(["coverage", "copy", "input_feeding"], "attention")
    if FLAGS.normalise in ("none", "average"):
        refuse(["alpha"], "normalise")


def load_task(workdir: pathlib.Path) -> Task:
    """The texts that the flags describe, as token ids.

    Raises:
        InputError: as `load_parallel_text`, `Pairs` and `settle_vocabulary`.
    """
    text = load_parallel_text(
        FLAGS.dataset, data_dir=FLAGS.data_dir, data_path=FLAGS.data_path,
        languages=FLAGS.languages, valid_share=FLAGS.validation,
    )  # fmt: skip
    text = text._replace(
        train=few(text.train, 500), valid=few(text.valid, 40), test=few(text.test, 40)
    )
    if FLAGS.shared:
        sides = [[line for pair in text.train for line in pair]]
    else:
        sides = [[pair[side] for pair in text.train] for side in (0, 1)]
    vocabularies = [
        settle_vocabulary(workdir, lambda lines=lines: build_vocabulary(lines), name)
        for lines, name in zip(sides, vocabulary_files(), strict=True)
    ]
    source, target = vocabularies[0], vocabularies[-1]

    def ids(part: list[tuple[str, str]]) -> tuple[list[Any], list[Any]]:
        return [encode(source, line) for line, _ in part], [
            encode(target, line) for _, line in part
        ]

    train = Pairs(*ids(text.train), limit=FLAGS.limit, longer="drop")
    valid = in_one_shape(*ids(text.valid)) if text.valid else None
    task = Task(text, source, target, train, valid, in_one_shape(*ids(text.test)))
    left_out = [
        f"{count:,} {why}"
        for count, why in ((text.skipped, "with an empty side"), (train.dropped, "too long"))
        if count
    ]
    say(
        f"{text.name}, {' to '.join(text.languages)}: {len(train):,} pairs to train on, "
        f"{len(text.valid):,} to validate and {len(task.test):,} to test with; "
        f"{len(source):,} and {len(target):,} tokens; shapes {task.train.buckets}"
        + (f"; left out {' and '.join(left_out)}" if left_out else "")
    )
    return task


def vocabulary_files() -> list[str]:
    """The names of the files in the workdir that hold the vocabulary of the sources and targets."""
    return ["vocabulary.json"] if FLAGS.shared else ["source.json", "target.json"]


def in_one_shape(sources: list[Any], targets: list[Any]) -> Pairs:
    """A split to decode: to compile all that decodes for another shape takes longer than padding.

    What is longer than --limit is cut.
    """
    widest = [min(FLAGS.limit, 1 + max(map(len, side))) for side in (sources, targets)]
    return Pairs(
        sources, targets, limit=FLAGS.limit, longer="cut", buckets=[(widest[0], widest[1])]
    )


def make_model(task: Task) -> nn.Module:
    """The translator that the flags describe."""
    sizes: dict[str, Any] = {
        "source_vocab_size": len(task.source), "target_vocab_size": len(task.target),
        "shared": FLAGS.shared, "dropout": FLAGS.dropout,
        "embedding_dropout": FLAGS.embedding_dropout,
    }  # fmt: skip
    if FLAGS.model == "transformer":
        return TransformerTranslator(transformer_config(context=FLAGS.limit), **sizes)
    looks = None
    if FLAGS.attention != "none":
        looks = attention(
            FLAGS.attention, features=FLAGS.hidden, window=FLAGS.attention_window,
            coverage=FLAGS.coverage,
        )  # fmt: skip
    cells = make_cells(FLAGS.model)
    return RecurrentTranslator(
        embedding_features=FLAGS.embedding_size, encoder_cells=cells, decoder_cells=cells,
        attention=looks, bidirectional=FLAGS.bidirectional, reverse_source=FLAGS.reverse_source,
        bridge=FLAGS.bridge, input_feeding=FLAGS.input_feeding, copying=FLAGS.copy, tie=FLAGS.tie,
        **sizes,
    )  # fmt: skip


def initialise(model: nn.Module, key: Any) -> Any:
    """The first variables of a translator."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    return model.init(key, tokens, jnp.ones(1, jnp.int32), tokens)


def objective() -> Objective:
    """What the flags have the search maximise."""
    return Objective(FLAGS.normalise, FLAGS.alpha, FLAGS.coverage_penalty)


def longest_output(task: Task) -> int:
    """The most tokens of an output, its end included.

    Raises:
        InputError: when --max_length is beyond the positions that a model learns.
    """
    if FLAGS.max_length is not None and FLAGS.max_length > FLAGS.limit:
        raise InputError(
            f"--max_length={FLAGS.max_length} is more than --limit={FLAGS.limit}, which no model "
            "has seen; lower it, or train with a higher limit"
        )
    return FLAGS.max_length or int(task.train.target_lengths.max())
