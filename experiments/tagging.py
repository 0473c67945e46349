"""Tagging: `python -m experiments.tagging --cell=lstm --crf`.

By default a bidirectional LSTM finds the token class of each character of Python source, which
needs no network. `--data_path` takes a file in CoNLL columns, or a folder with train and test
files, `--dataset` any prepared TFDS data set with tokens and a sequence of classes per example.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlcore.data import Loader, evaluation_batches
from dlcore.data.text import Sequences, TaggedText, load_tagged_text
from dlcore.metrics import f1, marks_spans, span_scores
from dlcore.models.text import RecurrentEncoder, Tagger
from dlcore.nn.sequences import length_mask
from dlcore.report import tagging_sections, write_report
from dlcore.types import Aux, Batch, Mean, Metrics, TrainState
from experiments import common
from experiments.common import text

FLAGS = flags.FLAGS
common.define_flags(
    dataset="python_tokens", steps=600, batch_size=64, learning_rate=3e-3, schedule="cosine",
    warmup_steps=50, weight_decay=0.01, eval_every=250, clip_norm=1.0,
)  # fmt: skip
text.define_vocabulary_flags(level="word", size=20_000)
text.define_recurrent_flags(hidden=128, layers=1, embedding_size=64, dropout=0.1)
text.define_stack_flags()
text.define_encoder_flags()
flags.DEFINE_bool("crf", False, "score neighbouring tags too, by a conditional random field")
flags.DEFINE_integer("tag_column", None, "column of a file's tags, from 1; default the last", 1)


def make_job(
    model: Tagger, train: Sequences, test: Sequences, table: Any, tag_names: tuple[str, ...]
) -> common.Job:
    """The negative log-likelihood of the tags."""
    spans = marks_spans(tag_names)

    def initialise(key: jax.Array) -> Any:
        variables = model.init(key, jnp.zeros((1, 2), jnp.int32), jnp.ones(1, jnp.int32))
        return text.with_table(variables, table)

    def measure(variables: Any, emissions: jax.Array, batch: Batch) -> Metrics:
        emissions = emissions.astype(jnp.promote_types(emissions.dtype, jnp.float32))
        tags, lengths, weight = batch["tags"], batch["length"], batch["weight"]
        losses = model.apply(variables, emissions, tags, lengths, weight, method="losses")
        found = model.apply(variables, emissions, lengths, method="predict")
        real = jnp.where(length_mask(lengths, tags.shape[1]), weight[:, None], 0)
        right = (found == tags).astype(jnp.float32)
        whole = jnp.all((found == tags) | (real == 0), axis=1).astype(jnp.float32)
        return {
            "loss": Mean.of(*losses), "accuracy": Mean.of(right, real),
            "sequence_accuracy": Mean.of(whole, weight),
            **(span_scores(found, tags, real > 0, tag_names) if spans else {}),
        }  # fmt: skip

    def loss_fn(params: Any, model_state: Any, batch: Batch, rng: jax.Array) -> tuple[Mean, Aux]:
        variables = text.cast({"params": params, **model_state})
        (emissions, _), model_state = model.apply(
            variables, batch["tokens"], batch["length"],
            train=True, rngs={"dropout": rng}, mutable=list(model_state),
        )  # fmt: skip
        metrics = measure(variables, emissions, batch)
        return metrics.pop("loss"), Aux(dict(model_state), metrics)

    def metric_fn(state: TrainState, batch: Batch) -> tuple[Metrics, None]:
        variables = text.cast({"params": state.params, **state.model_state})
        emissions, _ = model.apply(variables, batch["tokens"], batch["length"])
        return measure(variables, emissions, batch), None

    def summarise(means: dict[str, float], split: str) -> dict[str, float]:
        more = {"span_f1": f1(means["span_precision"], means["span_recall"])} if spans else {}
        return means | more

    return common.Job(
        name="tagging", initialise=initialise, loss_fn=loss_fn, metric_fn=metric_fn,
        feed=common.make_feed(train, test), frozen=text.frozen(),
        metric=("span_f1" if spans else "accuracy", "max"), summarise=summarise,
    )  # fmt: skip


def report(
    workdir: pathlib.Path, model: Tagger, state: TrainState, data: TaggedText, test: Sequences
) -> None:
    """Writes the report of the test sentences."""
    variables = {"params": state.params, **state.model_state}

    @jax.jit
    def predict(tokens: jax.Array, lengths: jax.Array) -> jax.Array:
        emissions, _ = model.apply(variables, tokens, lengths)
        return model.apply(variables, emissions, lengths, method="predict")

    found: list[np.ndarray] = []
    for batch in evaluation_batches(test, FLAGS.batch_size):
        rows = np.asarray(predict(batch["tokens"], batch["length"]))
        found += [row[:length] for row, length in zip(rows, batch["length"], strict=True)]
    tokens = [tokens[: FLAGS.limit] for tokens, _ in data.test]
    tags = [np.array(tags[: FLAGS.limit]) for _, tags in data.test]
    separator = "" if isinstance(tokens[0], str) else " "
    sections = tagging_sections(
        tokens, tags, found[: len(test)], tag_names=data.tag_names, separator=separator
    )
    common.say(f"report: {write_report(workdir, sections)}")


def main(_: list[str]) -> None:
    workdir = common.start("tagging")
    data = load_tagged_text(
        FLAGS.dataset, data_dir=FLAGS.data_dir, data_path=FLAGS.data_path,
        tag_column=FLAGS.tag_column,
    )  # fmt: skip
    data = data._replace(train=common.few(data.train, 500), test=common.few(data.test, 40))
    vocabulary = text.settle_vocabulary(
        workdir, lambda: text.vocabulary_of_tokens(token for one, _ in data.train for token in one)
    )
    train, test = (
        Sequences(
            [vocabulary.encode_tokens(tokens) for tokens, _ in part],
            tags=[tags for _, tags in part], limit=FLAGS.limit,
        )
        for part in (data.train, data.test)
    )  # fmt: skip
    common.say(
        f"{data.name}: {len(train):,} sequences to train on, {len(test):,} to test, "
        f"{len(data.tag_names)} tags, {len(vocabulary):,} different tokens"
    )
    model = Tagger(RecurrentEncoder(len(vocabulary), **text.encoder_options()),
                   len(data.tag_names), FLAGS.crf)  # fmt: skip
    job = make_job(model, train, test, text.pretrained(vocabulary), data.tag_names)
    if FLAGS.check:
        batch = Loader(train, 32, seed=FLAGS.seed).batch(0)
        # A conditional random field has one loss for a whole sequence.
        each = np.mean(batch["length"]) if FLAGS.crf else 1
        chance = float(each * np.log(len(data.tag_names)))
        common.check(job, text.at_full_length(model), batch, inputs="tokens", chance=chance)
    outcome = common.train(job, workdir)
    common.finish(job, workdir, outcome)
    if FLAGS.report:
        report(workdir, model, outcome.state, data, test)


if __name__ == "__main__":
    common.launch(main)
