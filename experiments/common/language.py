"""Scores, sampled text and the counted baseline of language models."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlcore.data.text import Corpus, Vocabulary, load_corpus
from dlcore.decode import generate
from dlcore.errors import InputError, choose
from dlcore.losses.output import SOFTMAXES, output_layer
from dlcore.metrics import language_scores
from dlcore.models.text import LanguageModel, NGram
from dlcore.models.text.ngram import SMOOTHINGS
from dlcore.nn.recurrent import CELLS, RecurrentStack
from dlcore.nn.transformer import Transformer
from dlcore.train.logs import writing
from experiments.common.flags import adopt, record_flags
from experiments.common.runs import conclude, few, summarise
from experiments.common.text import make_cells
from experiments.common.transformer import (
    OF_STACKS,
    OF_TRANSFORMERS,
    refuse,
    transformer_config,
)

FLAGS = flags.FLAGS
Ids = dict[str, np.ndarray]  # the tokens of "train", "valid" and "test"
_MODELS = ("ngram", "transformer", *CELLS)
SAMPLING = ("prompt", "generate", "temperature", "top_k", "top_p", "min_p")


def define_language_flags() -> None:
    """Defines the flags of the model, its training and its sampling."""
    flags.DEFINE_string("model", "lstm", f"one of {', '.join(_MODELS)}")
    flags.DEFINE_integer("window", 35, "tokens of each row in a step", 1)
    flags.DEFINE_integer("detach", None, "tokens that a gradient goes back; default the window", 1)
    flags.DEFINE_bool("tie", True, "one table for embedding and output")
    flags.DEFINE_enum("softmax", "full", SOFTMAXES, "how the output layer is trained")
    flags.DEFINE_integer("samples", 1024, "noise words of --softmax=sampled and nce", 1)
    flags.DEFINE_integer("order", 5, "of the n-gram model beside; 0 counts none", 0)
    flags.DEFINE_enum("smoothing", "kneser_ney", SMOOTHINGS, "of the n-gram model")
    flags.DEFINE_float("add_k", 0.01, "what --smoothing=add_k adds to each count")
    flags.DEFINE_string("prompt", "\n", "what the sampled texts continue")
    flags.DEFINE_integer("generate", 60, "tokens to sample at each evaluation; 0 for none", 0)
    flags.DEFINE_float("temperature", 0.8, "of sampling; 0 takes the likeliest token", 0)
    flags.DEFINE_integer("top_k", None, "sample from the likeliest ones only", 1)
    flags.DEFINE_float("top_p", None, "sample from the likeliest of this total probability only")
    flags.DEFINE_float("min_p", None, "sample from those this share as likely as the likeliest")
    adopt(__name__)


def load() -> Corpus:
    """The text that the flags describe.

    Raises:
        InputError: as `load_corpus`.
    """
    corpus = load_corpus(
        FLAGS.dataset, data_dir=FLAGS.data_dir, data_path=FLAGS.data_path,
        valid_share=FLAGS.validation, limit=FLAGS.characters,
    )  # fmt: skip
    return corpus._replace(
        **{part: few(getattr(corpus, part), 50_000) for part in Corpus._fields[1:]}
    )


def encode(vocabulary: Vocabulary, corpus: Corpus) -> Ids:
    """The token ids of the corpus by split.

    Raises:
        InputError: when the training or the test text has no token.
    """
    ids = {split: vocabulary.encode(getattr(corpus, split)) for split in Corpus._fields[1:]}
    for split in ("train", "test"):
        if not len(ids[split]):
            raise InputError(f"the {split} text of {corpus.name} is empty; give a longer text")
    return ids


def main_score(vocabulary: Vocabulary) -> str:
    """The score that models of this kind of tokens are compared by."""
    return "bits_per_character" if vocabulary.level == "char" else "perplexity_per_token"


def scores(nats: float, vocabulary: Vocabulary, corpus: Corpus, ids: Ids, split: str) -> Any:
    """The scores of `nats` per token on a split.

    Bits per character only where every character is spelt out, and perplexities per word only
    where tokens are not words.
    """
    text = getattr(corpus, split)
    spelt = vocabulary.level != "word"
    return language_scores(
        nats, tokens=len(ids[split]),
        words=len(text.split()) if vocabulary.level == "bpe" else None,
        characters=len(text) if spelt else None,
    )  # fmt: skip


def make_model(counts: np.ndarray) -> LanguageModel:
    """The model that the flags describe, for words that occur so often in the training text."""
    output = output_layer(FLAGS.softmax, counts, samples=FLAGS.samples)
    how = {
        "tie": FLAGS.tie, "dropout": FLAGS.dropout, "embedding_dropout": FLAGS.embedding_dropout,
    }  # fmt: skip
    if FLAGS.model == "transformer":
        refuse(("embedding_size", *OF_STACKS, "detach"), "model")
        body = Transformer(transformer_config(context=FLAGS.window))
        return LanguageModel(output, body, FLAGS.hidden, scale=FLAGS.hidden**0.5, **how)
    if FLAGS.model not in CELLS:
        raise choose("model", FLAGS.model, _MODELS)
    refuse(OF_TRANSFORMERS, "model")
    return LanguageModel(output, _recurrent_body(), FLAGS.embedding_size, **how)


def _recurrent_body() -> RecurrentStack:
    if FLAGS.model == "lstm_batch_norm":
        raise InputError(
            "--model=lstm_batch_norm keeps statistics for each step of a sequence, and a stream "
            "has no first step; lstm_layer_norm does without"
        )
    if FLAGS.detach is not None and FLAGS.detach > FLAGS.window:
        raise InputError(
            f"--detach={FLAGS.detach} is beyond --window={FLAGS.window}, where the gradient ends "
            "anyway; lower the one or raise the other"
        )
    return RecurrentStack(
        make_cells(FLAGS.model), residual=FLAGS.residual, dropout=FLAGS.dropout,
        variational=FLAGS.variational, state_dropout=FLAGS.state_dropout,
        candidate_dropout=FLAGS.candidate_dropout,
    )  # fmt: skip


class Counted:
    """The n-gram model of the flags, counted on the training text.

    Attributes:
        model: the model.
        scores: its scores on the test text.
    """

    def __init__(self, vocabulary: Vocabulary, corpus: Corpus, ids: Ids):
        self.model = NGram.count(
            ids["train"], order=FLAGS.order, vocab_size=len(vocabulary),
            smoothing=FLAGS.smoothing, k=FLAGS.add_k,
        )  # fmt: skip
        nats = -float(self.model.log_probs(ids["test"]).mean())
        self.scores = {"loss": nats, **scores(nats, vocabulary, corpus, ids, "test")}

    def describe(self) -> str:
        """The scores in one line."""
        found = ", ".join(f"{name} {value:.4g}" for name, value in self.scores.items())
        return f"{ngram_name()}: test {found}"


def by_name(metrics: dict[str, float], counted: Counted | None) -> dict[str, dict[str, float]]:
    """The scores of the model and of the counted one beside it, for the report."""
    return {FLAGS.model: metrics} | ({ngram_name(): counted.scores} if counted else {})


def ngram_name() -> str:
    """What the n-gram model of the flags is called."""
    return f"{FLAGS.smoothing} {FLAGS.order}-gram"


class Sampler:
    """Continues --prompt, with the randomness of --seed."""

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        self._prompt = vocabulary.encode(FLAGS.prompt)
        if not len(self._prompt):
            raise InputError(f"--prompt={FLAGS.prompt!r} has no token; give some text")
        self._how = {
            "steps": FLAGS.generate, "temperature": FLAGS.temperature,
            "top_k": FLAGS.top_k, "top_p": FLAGS.top_p, "min_p": FLAGS.min_p,
        }  # fmt: skip

    def neural(self, model: LanguageModel) -> Callable[[Any], str]:
        """Writes a text of a neural model with given variables; compiled once for all of them."""

        @jax.jit
        def continued(variables: Any, prompt: jax.Array, key: jax.Array) -> jax.Array:
            next_token = functools.partial(model.apply, variables, method="next_token")
            carry, _ = jax.lax.scan(
                lambda carry, token: (next_token(carry, token)[0], None),
                model.initial_carry(1, len(prompt) + FLAGS.generate), prompt[:-1, None],
            )  # fmt: skip
            return generate(next_token, carry, prompt[-1:], key, **self._how)

        prompt, key = jnp.asarray(self._prompt), self._key()
        if FLAGS.generate:  # What cannot be sampled shows here, before training.
            self._require_positions()
            shapes = jax.eval_shape(lambda: model.init(key, prompt[None, :1]))
            jax.eval_shape(continued, shapes, prompt, key)
        return lambda variables: self._text(continued(variables, prompt, key))

    def counted(self, ngram: NGram) -> str:
        """A text of an n-gram model."""
        history = ngram.start(1)
        for token in self._prompt[:-1]:
            history, _ = ngram.next_token(history, jnp.asarray([token]))
        first = jnp.asarray(self._prompt[-1:])
        return self._text(generate(ngram.next_token, history, first, self._key(), **self._how))

    def _require_positions(self) -> None:
        length = len(self._prompt) + FLAGS.generate
        if FLAGS.model == "transformer" and FLAGS.position == "learned" and length > FLAGS.window:
            raise InputError(
                f"--generate={FLAGS.generate} after a prompt of {len(self._prompt)} tokens goes "
                f"beyond the --window={FLAGS.window} positions that are learned; lower the one, "
                "raise the other, or choose another --position"
            )

    def _key(self) -> jax.Array:
        return jax.random.key(FLAGS.seed)

    def _text(self, tokens: jax.Array) -> str:
        return self._vocabulary.decode([*self._prompt.tolist(), *np.asarray(tokens)[0].tolist()])


def write_sample(workdir: pathlib.Path, step: int, sample: str) -> None:
    """Writes WORKDIR/samples/STEP.txt."""
    path = workdir / "samples" / f"{step:08}.txt"
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        path.write_text(sample + "\n", encoding="utf-8")


def finish_counted(workdir: pathlib.Path, counted: Counted | None, vocabulary: Vocabulary) -> None:
    """Ends the run of an n-gram model, for which there is nothing to train."""
    if counted is None:
        raise InputError("--model=ngram --order=0 counts nothing; give an order of 1 or more")
    record_flags("language_model", workdir)
    if FLAGS.generate:
        write_sample(workdir, 0, Sampler(vocabulary).counted(counted.model))
    finite = {name: value if np.isfinite(value) else None for name, value in counted.scores.items()}
    summarise("language_model", workdir, {"metrics": finite})
    conclude("language_model", workdir, counted.scores, f"by {ngram_name()}")
