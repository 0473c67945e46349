"""Text classification: recurrent networks on texts by class.

By default a bidirectional LSTM tells which package a docstring belongs to, which needs no network.
`--data_path` takes a TSV or CSV file of labels and texts, or a folder with train.tsv and test.tsv
(and dev.tsv, to choose the model with), `--dataset` any prepared TFDS data set with one text and
one class per example.
`--predict=FILE --workdir=DIR` classifies the lines of a file. `--init_from=DIR` starts from the
encoder of a sequence autoencoder (`translation --autoencode`), which has seen texts without labels
(Dai & Le 2015).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch
from dlcore.data import evaluation_batches
from dlcore.data.text import Sequences, Vocabulary, load_labelled_text
from dlcore.errors import InputError
from dlcore.launch.answers import class_answers
from dlcore.launch.fields import FILES, LARGEST, choice, column, integer, number, path
from dlcore.launch.text import (
    EncoderConfig,
    VocabularyConfig,
    answer_batches,
    at_full_length,
    cut_off,
    encode,
    not_read,
    with_table,
)
from dlcore.launch.uncertainty import UncertaintyConfig, uncertain_answers, with_dropout
from dlcore.launch.weights import some, taken_over
from dlcore.metrics import classification
from dlcore.metrics.uncertainty import Uncertain, uncertainty
from dlcore.models.text import POOLINGS, RecurrentEncoder, TextClassifier
from dlcore.report import Section, heat_section, text_sections
from dlcore.types import Aux, Batch, Mean, Metrics, Params, PyTree, TrainState, Variables

_FROM_NOTHING = {"init_from": (None,)}
# The encoder of a classifier by the paths that a translator has it at.
_ADOPTED = (
    (r"^params/encoder/embedding/(.*)$", r"params/source_embedding/\1"),
    (r"^params/encoder/stack/(.*)$", r"params/encoder/\1"),
)
SHOWN = 5  # texts whose attention the report shows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    launch.Config,
    VocabularyConfig,
    EncoderConfig,
    UncertaintyConfig,
    dataset="docstrings",
    steps=900,
    batch_size=64,
    learning_rate=2e-3,
    schedule="cosine",
    warmup_steps=50,
    weight_decay=0.01,
    eval_every=200,
    clip_norm=1.0,
    vocab_size=20_000,
    lower=True,
    dropout=0.3,
):
    """The configuration of a text classifier."""

    # The final outputs of both directions lie at the two ends of a text.
    group_conditions: ClassVar = {
        "merge": {"pooling": lambda pooling: pooling != "last"},
        "embeddings": _FROM_NOTHING,
        VocabularyConfig: _FROM_NOTHING,
    }

    init_from: str | None = path(
        None, "run of translation --autoencode whose vocabulary and encoder are taken"
    )
    pooling: str = choice("max", POOLINGS, "how the steps become one vector")
    label_smoothing: float = number(0.0, 0, 1, "share of the target spread over all classes")
    text_column: int | str | None = column("column of a table's texts", when=FILES)
    label_column: int | str | None = column("column of a table's labels", when=FILES)
    top: int = integer(5, 1, LARGEST, "classes that --predict lists", free=True)


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that a classifier remembers.

    Attributes:
        class_names: the name of each label.
        vocabulary: of the texts.
    """

    class_names: tuple[str, ...]
    vocabulary: Vocabulary


class TextClassification(launch.Task[Config, Info]):
    """A classifier of texts, trained by cross-entropy."""

    metric = ("accuracy", "max")
    reads = "lines"
    adopted: launch.Trained  # the run of --init_from
    table: np.ndarray | None = None  # pre-trained vectors that a new run starts from

    def data(self) -> launch.Data[Info]:
        config = self.config
        data = load_labelled_text(
            config.dataset,
            data_dir=config.data_dir,
            data_path=config.data_path,
            text_column=config.text_column,
            label_column=config.label_column,
        )
        for note in data.notes:
            launch.say(note)
        examples, self.tested = config.cut(data.train, 500), config.cut(data.test, 40)
        valid = [] if data.valid is None else [config.cut(data.valid, 40)]
        vocabulary = self._vocabulary([line for line, _ in examples])
        train, self.test, *held_out = (
            Sequences(
                [encode(vocabulary, line) for line, _ in part],
                labels=[label for _, label in part],
                limit=config.limit,
            )
            for part in (examples, self.tested, *valid)
        )
        launch.say(
            f"{data.name}: {len(train):,} texts to train on, {len(self.test):,} to test, "
            + "".join(f"{len(part):,} to validate with, " for part in held_out)
            + f"{len(data.class_names)} classes, {len(vocabulary):,} tokens, at most "
            f"{train.buckets[-1]} in a text"
            + cut_off({"to train on": train, "to test": self.test}, config.limit)
        )
        self.table = config.pretrained(vocabulary, config.seed)
        info = Info(data.class_names, vocabulary)
        return self.split_data(train, self.test, info, validation=next(iter(held_out), None))

    def _vocabulary(self, texts: Sequence[str]) -> Vocabulary:
        """Returns the vocabulary of the texts, or that of the run to start from.

        Raises:
            InputError: when that is not the run of a sequence autoencoder.
        """
        source = self.config.init_from
        if source is None:
            return self.config.build_vocabulary(texts)
        self.adopted = trained = launch.load(source)
        if not getattr(trained.config, "autoencode", False):
            raise InputError(
                f"--init_from={source} is a run of {trained.task.name()} and no sequence "
                "autoencoder; train one by translation --autoencode"
            )
        vocabulary: Vocabulary = trained.info.vocabulary
        return vocabulary

    def adopt(self, state: TrainState) -> TrainState:
        if self.config.init_from is None:
            return state
        new, matches = taken_over(state, self.adopted.variables, _ADOPTED)
        lacking = [*matches.mismatched, *matches.missing]
        if lacking:
            theirs = self.adopted.config
            raise InputError(
                f"the encoder of {self.config.init_from} is another: it has --cell={theirs.model} "
                f"--layers={theirs.layers} --hidden={theirs.hidden} "
                f"--embedding_size={theirs.embedding_size} --bidirectional={theirs.bidirectional}; "
                f"choose these ({some(lacking)} do not fit)"
            )
        # A decoder is not wanted.
        launch.say(
            f"{self.config.init_from}: restored {len(matches.restored)} leaves of the encoder, "
            f"kept {len(matches.kept)}, {len(matches.unused)} are not used"
        )
        return new

    @functools.cached_property
    def model(self) -> TextClassifier:
        """The network."""
        encoder = RecurrentEncoder(len(self.info.vocabulary), **self.config.encoder_options())
        return TextClassifier(encoder, len(self.info.class_names), self.config.pooling)

    def init(self, key: jax.Array) -> Variables:
        variables = self.model.init(key, jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))
        return with_table(variables, self.table)

    def frozen(self) -> tuple[tuple[str, bool], ...]:
        return self.config.frozen_table()

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        (logits, _), new_state = self.model.apply(
            {"params": params, **model_state},
            batch["tokens"],
            batch["length"],
            train=True,
            rngs={"dropout": rng},
            mutable=list(model_state),
        )
        metrics = classification(
            logits, batch["label"], batch["weight"], label_smoothing=self.config.label_smoothing
        )
        return metrics.pop("loss"), Aux(dict(new_state), metrics)

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        variables = {"params": state.params, **state.model_state}
        logits, _ = self.model.apply(variables, batch["tokens"], batch["length"])
        return classification(logits, batch["label"], batch["weight"])

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        chance = float(np.log(len(self.info.class_names)))
        return launch.Check(at_full_length(self.model), "tokens", chance)

    @functools.cached_property
    def outputs(self) -> Callable[[Variables, Batch], tuple[jax.Array, jax.Array | None]]:
        """Maps variables and a batch [B, T] to probabilities [B, K] and attention [B, T]."""

        return jax.jit(self._outputs)

    @functools.cached_property
    def sampled_outputs(
        self,
    ) -> Callable[[Variables, Batch, jax.Array], tuple[jax.Array, jax.Array | None]]:
        """Maps (variables, batch, key) to those of the thinned network of the key."""
        return with_dropout(self._outputs)

    def _outputs(
        self, variables: Variables, batch: Batch, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        rngs = None if key is None else {"dropout": key}
        logits, activations = self.model.apply(
            variables, batch["tokens"], batch["length"], rngs=rngs
        )
        return jax.nn.softmax(logits.astype(jnp.float32)), activations.get("attention")

    def predict(self, variables: Variables, inputs: Sequence[str]) -> np.ndarray | Uncertain:
        """Returns the probabilities of the classes for lines of text, float32 [N, K].

        With --dropout_samples they are a mean over thinned networks, and `Uncertain` tells how sure
        it is. The masks of a text depend on the length that its batch is padded to.
        """
        if self.config.dropout_samples is None:
            return self.probabilities(functools.partial(self.outputs, variables), inputs)
        samples = self.config.samples(
            lambda key: self.probabilities(
                lambda batch: self.sampled_outputs(variables, batch, key), inputs
            )
        )
        return uncertainty(samples)

    def probabilities(
        self, outputs: Callable[[Batch], tuple[jax.Array, Any]], inputs: Sequence[str]
    ) -> np.ndarray:
        """Returns the probabilities [N, K] that a function of a batch gives for lines of text."""
        lines = [encode(self.info.vocabulary, line) for line in inputs]
        found = [np.zeros((0, len(self.info.class_names)), np.float32)]
        for batch in answer_batches(lines, self.config.limit):
            found.append(np.asarray(outputs(batch)[0]))
        return np.concatenate(found)[: len(lines)]

    def remark(self, inputs: Sequence[str]) -> str | None:
        return not_read([self.info.vocabulary.encode(line) for line in inputs], self.config.limit)

    def answers(self, inputs: Sequence[str], outputs: Any) -> list[dict[str, Any]]:
        names, top = self.info.class_names, self.config.top
        if isinstance(outputs, Uncertain):
            return uncertain_answers(class_answers(outputs.probabilities, names, top), outputs)
        return class_answers(outputs, names, top)

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        names, tokens = self.info.class_names, self.info.vocabulary.tokens
        variables = self.computing(outcome.variables)
        texts, labels = zip(*self.tested, strict=True)
        sections = text_sections(
            texts,
            np.array(labels),
            self.probabilities(functools.partial(self.outputs, variables), texts),
            class_names=names,
        )
        if self.config.pooling == "attention":
            batch = next(evaluation_batches(self.test, SHOWN))
            weights = np.asarray(self.outputs(variables, batch)[1], np.float32)
            examples = []
            for row in range(min(SHOWN, len(self.test))):
                length = batch["length"][row]
                words = [tokens[token] for token in batch["tokens"][row, :length]]
                examples.append((names[labels[row]], words, weights[row, :length]))
            sections.append(heat_section("Attention", examples, text="What each word weighs."))
        return sections


if __name__ == "__main__":
    launch.main(TextClassification)
