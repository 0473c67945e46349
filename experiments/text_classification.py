"""Text classification: `python -m experiments.text_classification --cell=lstm --bidirectional`.

By default a bidirectional LSTM tells which package a docstring belongs to, which needs no network.
`--data_path` takes a TSV file of labels and texts, or a folder with train.tsv and test.tsv,
`--dataset` any prepared TFDS data set with one text and one class per example.
"""

import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlcore.data import Loader, evaluation_batches
from dlcore.data.text import LabelledText, Sequences, Vocabulary, load_labelled_text
from dlcore.metrics import classification
from dlcore.models.text import POOLINGS, RecurrentEncoder, TextClassifier
from dlcore.report import Section, heat_section, text_sections, write_report
from dlcore.types import Aux, Batch, Mean, Metrics, TrainState
from experiments import common
from experiments.common import text

FLAGS = flags.FLAGS
common.define_flags(
    dataset="docstrings", steps=900, batch_size=64, learning_rate=2e-3, schedule="cosine",
    warmup_steps=50, weight_decay=0.01, eval_every=200, clip_norm=1.0,
)  # fmt: skip
text.define_vocabulary_flags(level="word", size=20_000, lower=True)
text.define_recurrent_flags(hidden=128, layers=1, embedding_size=128, dropout=0.3)
text.define_stack_flags()
text.define_encoder_flags()
flags.DEFINE_enum("pooling", "max", POOLINGS, "how the steps become one vector")
flags.DEFINE_float("label_smoothing", 0.0, "share of the target spread over all classes", 0, 1)

SHOWN = 5  # texts whose attention the report shows


def make_job(model: nn.Module, train: Sequences, test: Sequences, table: Any) -> common.Job:
    """The cross-entropy of each text, by its weight."""

    def initialise(key: jax.Array) -> Any:
        variables = model.init(key, jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))
        return text.with_table(variables, table)

    def loss_fn(params: Any, model_state: Any, batch: Batch, rng: jax.Array) -> tuple[Mean, Aux]:
        (logits, _), model_state = model.apply(
            text.cast({"params": params, **model_state}), batch["tokens"], batch["length"],
            train=True, rngs={"dropout": rng}, mutable=list(model_state),
        )  # fmt: skip
        metrics = classification(
            logits, batch["label"], batch["weight"], label_smoothing=FLAGS.label_smoothing
        )
        return metrics.pop("loss"), Aux(dict(model_state), metrics)

    def metric_fn(state: TrainState, batch: Batch) -> tuple[Metrics, None]:
        variables = text.cast({"params": state.params, **state.model_state})
        logits, _ = model.apply(variables, batch["tokens"], batch["length"])
        return classification(logits, batch["label"], batch["weight"]), None

    return common.Job(
        name="text_classification", initialise=initialise, loss_fn=loss_fn, metric_fn=metric_fn,
        feed=common.make_feed(train, test), frozen=text.frozen(),
    )  # fmt: skip


def report(
    workdir: pathlib.Path, model: nn.Module, state: TrainState, data: LabelledText,
    vocabulary: Vocabulary, test: Sequences,
) -> None:  # fmt: skip
    """Writes the report of the test texts."""
    variables = {"params": state.params, **state.model_state}

    @jax.jit
    def predict(tokens: jax.Array, lengths: jax.Array) -> Any:
        logits, activations = model.apply(variables, tokens, lengths)
        return jax.nn.softmax(logits), activations.get("attention")

    batches = [*evaluation_batches(test, FLAGS.batch_size)]
    found = [jax.device_get(predict(batch["tokens"], batch["length"])) for batch in batches]
    probabilities = np.concatenate([one for one, _ in found])[: len(test)]
    texts, labels = zip(*data.test, strict=True)
    sections: list[Section] = text_sections(
        texts, np.array(labels), probabilities, class_names=data.class_names
    )
    if FLAGS.pooling == "attention":
        examples = []
        for row in range(min(SHOWN, len(test))):
            length = batches[0]["length"][row]
            words = [vocabulary.tokens[token] for token in batches[0]["tokens"][row, :length]]
            examples.append((data.class_names[labels[row]], words, found[0][1][row, :length]))
        sections.append(heat_section("Attention", examples, text="What each word weighs."))
    common.say(f"report: {write_report(workdir, sections)}")


def main(_: list[str]) -> None:
    workdir = common.start("text_classification")
    data = load_labelled_text(FLAGS.dataset, data_dir=FLAGS.data_dir, data_path=FLAGS.data_path)
    data = data._replace(train=common.few(data.train, 500), test=common.few(data.test, 40))
    vocabulary = text.settle_vocabulary(
        workdir, lambda: text.build_vocabulary(line for line, _ in data.train)
    )
    train, test = (
        Sequences(
            [text.encode(vocabulary, line) for line, _ in part],
            labels=[label for _, label in part], limit=FLAGS.limit,
        )
        for part in (data.train, data.test)
    )  # fmt: skip
    common.say(
        f"{data.name}: {len(train):,} texts to train on, {len(test):,} to test, "
        f"{len(data.class_names)} classes, {len(vocabulary):,} words, at most {train.buckets[-1]} "
        "in a text"
    )
    encoder = RecurrentEncoder(len(vocabulary), **text.encoder_options())
    model = TextClassifier(encoder, len(data.class_names), FLAGS.pooling)
    job = make_job(model, train, test, text.pretrained(vocabulary))
    if FLAGS.check:
        batch, chance = Loader(train, 32, seed=FLAGS.seed).batch(0), np.log(len(data.class_names))
        common.check(job, text.at_full_length(model), batch, inputs="tokens", chance=float(chance))
    outcome = common.train(job, workdir)
    common.finish(job, workdir, outcome)
    if FLAGS.report:
        report(workdir, model, outcome.state, data, vocabulary, test)


if __name__ == "__main__":
    common.launch(main)
