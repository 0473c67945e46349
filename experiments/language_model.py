"""Language models: `python -m experiments.language_model --model=lstm --level=word`.

By default an LSTM on the words of the Python language reference and the docstrings of installed
packages, which needs no network, beside a counted Kneser-Ney model of the same tokens.
`--data_path` takes a text file or a folder of them, `--dataset` any prepared TFDS data set with one
text per example. `--model=ngram` counts alone.
"""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlcore.data import Loader
from dlcore.data.text import Corpus, Stream, Vocabulary, Windows
from dlcore.losses.output import Readout
from dlcore.models.text import TENSOR_PARALLEL, LanguageModel
from dlcore.types import Aux, Batch, Mean, Metrics, TrainState
from experiments import common
from experiments.common import language, text
from experiments.common.language import Ids
from experiments.common.language_report import report
from experiments.common.transformer import define_transformer_flags

FLAGS = flags.FLAGS
common.define_flags(
    dataset="python_docs", steps=4000, batch_size=32, learning_rate=3e-3, schedule="cosine",
    warmup_steps=100, weight_decay=0.01, eval_every=1000, clip_norm=1.0, validation=0.1,
    free=language.SAMPLING,
)  # fmt: skip
text.define_vocabulary_flags(level="word", size=10_000)
text.define_recurrent_flags(hidden=256, layers=2, embedding_size=256, dropout=0.1)
text.define_stack_flags()
define_transformer_flags(heads=4)
language.define_language_flags()
flags.DEFINE_integer("characters", None, "most characters of training text; default all", 1)


def make_job(
    model: LanguageModel, vocabulary: Vocabulary, corpus: Corpus, ids: Ids, workdir: pathlib.Path
) -> common.Job:
    """Truncated back-propagation through time: each row of a batch goes on where it stopped.

    Models that carry nothing on read windows in any order instead.
    """

    def window(variables: Any, batch: Batch, carry: Any, **how: Any) -> tuple[Any, Readout, Any]:
        (carry, readout), state = model.apply(
            text.cast(variables), batch["inputs"], batch["reset"], carry=carry, method="window",
            **how,
        )  # fmt: skip
        return carry, readout, dict(state)

    def mean(losses: jax.Array, batch: Batch) -> Mean:
        weight, shape = batch["weight"], batch["targets"].shape  # of rows or of tokens
        weight = jnp.broadcast_to(weight.reshape(shape[0], -1), shape)
        return Mean.of(losses, weight.reshape(-1))

    def loss_fn(params: Any, model_state: Any, batch: Batch, rng: jax.Array) -> tuple[Mean, Aux]:
        noise_key, dropout_key = jax.random.split(rng)
        carry, readout, model_state = window(
            {"params": params, **model_state}, batch, batch.get("carry"), detach=FLAGS.detach,
            train=True, rngs={"dropout": dropout_key}, mutable=list(model_state),
        )  # fmt: skip
        losses = model.output.losses(noise_key, readout, batch["targets"].reshape(-1))
        return mean(losses, batch), Aux(model_state, {}, carry)

    def metric_fn(state: TrainState, batch: Batch) -> tuple[Metrics, Any]:
        variables = {"params": state.params, **state.model_state}
        carry, readout, _ = window(variables, batch, state.carry, mutable=[])
        nats = model.output.nats(readout, batch["targets"].reshape(-1))
        return {"loss": mean(nats, batch)}, carry

    write = language.Sampler(vocabulary).neural(model)

    def observe(state: TrainState) -> None:
        if FLAGS.generate:
            sample = write({"params": state.params, **state.model_state})
            language.write_sample(workdir, int(state.step), sample)

    def summarise(means: dict[str, float], split: str) -> dict[str, float]:
        part = "valid" if split == "validation" else split
        return means | language.scores(means["loss"], vocabulary, corpus, ids, part)

    size, part = FLAGS.batch_size, common.of_process()
    streams = {
        split: Stream(tokens, size, FLAGS.window, **part)
        for split, tokens in ids.items() if len(tokens)
    }  # fmt: skip
    train = streams["train"].batches
    if model.initial_carry(size) is None:
        train = Loader(Windows(ids["train"], FLAGS.window), size, seed=FLAGS.seed, **part).batches
    return common.Job(
        name="language_model",
        initialise=lambda key: model.init(key, jnp.zeros((1, 1), jnp.int32)),
        loss_fn=loss_fn, metric_fn=metric_fn, carry=lambda: model.initial_carry(size),
        feed=common.Feed(
            train, streams["test"].epoch, streams["valid"].epoch if "valid" in streams else None
        ),
        metric=(language.main_score(vocabulary), "min"), rules=TENSOR_PARALLEL,
        per_step={"tokens": size * FLAGS.window}, summarise=summarise, observe=observe,
    )  # fmt: skip


def log_probs(model: LanguageModel, variables: Any, tokens: jax.Array) -> Any:
    """The log-probabilities of all words after each token, and the activations."""
    _, readout, activations = model.apply(variables, tokens)
    hidden = readout.hidden.reshape(-1, readout.hidden.shape[-1])
    return model.output.log_probs(readout._replace(hidden=hidden)), activations


def main(_: list[str]) -> None:
    workdir = common.start("language_model")
    corpus = language.load()
    vocabulary = text.settle_vocabulary(workdir, lambda: text.build_vocabulary(corpus.train))
    ids = language.encode(vocabulary, corpus)
    common.say(
        f"{corpus.name}: {len(ids['train']):,} tokens to train on, {len(ids['valid']):,} to "
        f"validate and {len(ids['test']):,} to test with, {len(vocabulary):,} different ones"
    )
    counted = language.Counted(vocabulary, corpus, ids) if FLAGS.order else None
    if FLAGS.model == "ngram":
        language.finish_counted(workdir, counted, vocabulary)
        return
    if counted:
        common.say(counted.describe())
    model = language.make_model(np.bincount(ids["train"], minlength=len(vocabulary)))
    job = make_job(model, vocabulary, corpus, ids, workdir)
    if FLAGS.check:
        forward, chance = functools.partial(log_probs, model), float(np.log(len(vocabulary)))
        common.check(job, forward, next(job.feed.train(0)), inputs="inputs", chance=chance)
    outcome = common.train(job, workdir)
    common.finish(job, workdir, outcome, ngram=counted and counted.scores)
    variables = {"params": outcome.state.params, **outcome.state.model_state}
    if FLAGS.generate and not outcome.result.steps:
        print(language.Sampler(vocabulary).neural(model)(variables))
    if FLAGS.report:
        first = job.initialise(jax.random.split(jax.random.key(FLAGS.seed))[0])
        scores = language.by_name(outcome.metrics, counted)
        report(workdir, model, variables, first, vocabulary, ids, scores)


if __name__ == "__main__":
    common.launch(main)
