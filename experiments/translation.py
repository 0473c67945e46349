"""Translation: `python -m experiments.translation --model=transformer --shared --level=bpe`.

By default a recurrent net with attention writes dates of many languages and formats in ISO 8601,
which needs no network; `--dataset=dates/en_de` translates them. `--data_path` takes a TSV file of
pairs or a folder of aligned files (with `--languages=en,de`), `--dataset` any prepared TFDS set of
translations. `--translate=FILE` translates the lines of a file with what was trained.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import flags

from dlcore import parallel
from dlcore.data import Loader
from dlcore.data.text import TokenLoader
from dlcore.decode import scheduled_inputs
from dlcore.models.text import TENSOR_PARALLEL
from dlcore.models.text.prediction import log_probs, nats, smoothed
from dlcore.nn.sequences import length_mask
from dlcore.types import Aux, Batch, Mean, Metrics, TrainState
from experiments import common
from experiments.common import text, translating
from experiments.common.transformer import define_transformer_flags
from experiments.common.translation import (
    DECODING,
    Task,
    check_flags,
    define_translation_flags,
    initialise,
    load_task,
    make_model,
)
from experiments.common.translation_report import Follow, report

FLAGS = flags.FLAGS
common.define_flags(
    dataset="dates", steps=1500, batch_size=64, learning_rate=3e-3, schedule="cosine",
    warmup_steps=100, weight_decay=0.0, eval_every=500, clip_norm=1.0, free=DECODING,
)  # fmt: skip
text.define_vocabulary_flags(level="char", size=None)
text.define_recurrent_flags(hidden=128, layers=1, embedding_size=64, dropout=0.1)
define_transformer_flags(heads=4)
define_translation_flags()

SHIFT = 7  # of the key of scheduled sampling, so that it is not that of dropout


def make_job(model: nn.Module, task: Task, workdir: pathlib.Path) -> common.Job:
    """The cross-entropy of each target token, by its weight."""

    def mean(losses: jax.Array, batch: Batch) -> Mean:
        real = length_mask(batch["target_length"], losses.shape[1])
        return Mean.of(losses, real * batch["weight"][:, None])

    def inputs(variables: Any, batch: Batch, key: jax.Array) -> jax.Array:
        """Those of teacher forcing, of which the model may draw some."""
        if FLAGS.scheduled_sampling == 0:
            return batch["inputs"]
        call = functools.partial(model.apply, variables)
        memory = call(batch["source"], batch["source_length"], method="encode")
        carry = call(memory, batch["inputs"].shape[1], method="initial_carry")
        return scheduled_inputs(
            lambda carry, token: call(carry, token, memory, method="next_token"),
            carry, batch["inputs"], key, share=FLAGS.scheduled_sampling,
            rows=parallel.positions(len(batch["inputs"])),
        )  # fmt: skip

    def loss_fn(params: Any, model_state: Any, batch: Batch, rng: jax.Array) -> tuple[Mean, Aux]:
        variables = text.cast({"params": params, **model_state})
        prediction, activations = model.apply(
            variables, batch["source"], batch["source_length"],
            inputs(variables, batch, jax.random.fold_in(rng, SHIFT)), train=True,
            rngs={"dropout": rng},
        )  # fmt: skip
        losses = smoothed(prediction, batch["targets"], FLAGS.label_smoothing)
        if "coverage_loss" in activations:
            losses = losses + activations["coverage_loss"]
        return mean(losses, batch), Aux(model_state, {})

    def metric_fn(state: TrainState, batch: Batch) -> tuple[Metrics, None]:
        variables = text.cast({"params": state.params, **state.model_state})
        prediction, _ = model.apply(
            variables, batch["source"], batch["source_length"], batch["inputs"]
        )
        return {"loss": mean(nats(prediction, batch["targets"]), batch)}, None

    how = {"seed": FLAGS.seed, **common.of_process()}
    if FLAGS.batch_tokens is None:
        train = Loader(task.train, FLAGS.batch_size, **how)
        per_step = {"examples": FLAGS.batch_size}
    else:
        multiple = FLAGS.accumulate * jax.device_count()
        train = TokenLoader(task.train, FLAGS.batch_tokens, multiple=multiple, **how)
        per_step = {"target_tokens": round(train.tokens_per_epoch / train.steps_per_epoch)}
    held_out = {
        name: common.passes(translating.by_length(split))
        for name, split in (("test", task.test), ("valid", task.valid)) if split
    }  # fmt: skip
    return common.Job(
        name="translation", initialise=functools.partial(initialise, model), loss_fn=loss_fn,
        metric_fn=metric_fn, metric=("loss", "min"), keep=max(3, FLAGS.average),
        feed=common.Feed(train.batches, held_out["test"], held_out.get("valid")),
        per_step=per_step, observe=Follow(task, model, workdir), rules=TENSOR_PARALLEL,
    )  # fmt: skip


def check(job: common.Job, model: nn.Module, task: Task) -> None:
    """--check, on one batch."""
    batch = next(job.feed.train(0))

    def forward(variables: Any, source: jax.Array) -> Any:
        lengths = jnp.full(len(source), source.shape[1], jnp.int32)
        prediction, activations = model.apply(variables, source, lengths, source % 2)
        return log_probs(prediction), activations

    common.check(job, forward, batch, inputs="source", chance=float(jnp.log(len(task.target))))


def main(_: list[str]) -> None:
    workdir = common.start("translation")
    check_flags()
    task = load_task(workdir)
    model = make_model(task)
    job = make_job(model, task, workdir)
    others, lines = translating.prepare(task, model)
    if FLAGS.check:
        check(job, model, task)
    outcome = common.train(job, workdir)
    learned = translating.final_variables(outcome.state, workdir)
    models, variables = zip((model, learned), *others, strict=True)
    tested = translating.test(task, models, variables, workdir)
    metrics = {**outcome.metrics, **tested.metrics}
    more = {"greedy_bleu": tested.scores["greedy"].bleu, "search_errors": tested.errors.shares}
    common.finish(job, workdir, dataclasses.replace(outcome, metrics=metrics), **more)
    if lines:
        translating.translate_lines(lines, workdir, task, models, variables)
    if FLAGS.report:
        report(workdir, task, model, learned, tested)


if __name__ == "__main__":
    common.launch(main)
