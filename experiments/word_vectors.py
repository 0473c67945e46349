"""Word vectors: `python -m experiments.word_vectors --model=skip_gram --neighbours=array,python`.

By default skip-gram with negative sampling learns from the docstrings of installed packages, which
needs no network. `--data_path` takes a text file, a folder or a pattern of files of any size.
`--vectors=FILE` evaluates vectors of any program on `--analogies` and `--similarities`.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from dlcore.data import Arrays, evaluation_batches
from dlcore.data.text import (
    TokenFile,
    Vectors,
    WordStream,
    held_out_pairs,
    keep_probabilities,
)
from dlcore.models.embedding import (
    TENSOR_PARALLEL,
    Word2Vec,
    glove_vectors,
    initial_sums,
    objective,
    word2vec_step,
)
from dlcore.types import Batch, Metrics, TrainState
from experiments import common
from experiments.common import glove
from experiments.common import word_vectors as words

FLAGS = flags.FLAGS
common.define_flags(
    dataset="python_docs", steps=1, batch_size=32_768, learning_rate=0.37, schedule="linear",
    validation=0.02, free=("epochs", "corpus_dir", *words.EVALUATION),
)  # fmt: skip
words.define_word_flags()


def make_model(tokens: TokenFile) -> Word2Vec:
    """The model that the flags describe."""
    how = objective(
        FLAGS.objective, tokens.counts, negatives=FLAGS.negatives, samples=FLAGS.samples,
        exponent=FLAGS.exponent,
    )  # fmt: skip
    grams = words.grams_of(tokens.words) if FLAGS.subwords else None
    return Word2Vec(
        how, FLAGS.features, FLAGS.model, FLAGS.window, FLAGS.original_gradient, grams,
        FLAGS.buckets if FLAGS.subwords else 0,
    )  # fmt: skip


def learnt_vectors(model: Word2Vec, tokens: TokenFile, params: Any) -> Vectors:
    """The vectors of all words of the corpus, the most frequent first."""
    vectors, ids = jax.jit(model.vectors), np.arange(len(tokens.words))
    parts = [
        np.asarray(vectors(params, part)) for part in np.array_split(ids, 1 + len(ids) // 4096)
    ]
    return Vectors(list(tokens.words), np.concatenate(parts))


def make_job(model: Word2Vec, tokens: TokenFile) -> common.Job:
    """Training on the corpus, measured on pairs of words that are held out of it."""
    keep = keep_probabilities(tokens.counts, threshold=FLAGS.subsample, rule=FLAGS.subsampling)
    micro_batch = model.sharing * max(1, round(FLAGS.micro_batch / model.sharing))
    size = -(-FLAGS.batch_size // micro_batch) * micro_batch
    stream = WordStream(
        tokens.tokens, keep, size=size, window=FLAGS.window, fixed=FLAGS.fixed_window,
        held_out=FLAGS.validation, seed=FLAGS.seed,
    )  # fmt: skip
    common.settle_steps(FLAGS.epochs, stream.steps_per_epoch)
    held = stream.held_out[0] if len(stream.held_out) else 0
    pairs = held_out_pairs(
        stream.stretch(int(held), epoch=0), window=FLAGS.window, size=FLAGS.pairs,
        negatives=FLAGS.negatives, noise=tokens.counts.astype(float) ** FLAGS.exponent,
        together=FLAGS.model != "skip_gram", seed=FLAGS.seed,
    )  # fmt: skip

    def metric_fn(state: TrainState, batch: Batch) -> tuple[Metrics, None]:
        return model.held_out(state.params, batch), None

    def initialise(key: jax.Array) -> Any:
        return {"params": model.init(key)}

    rate = common.make_schedule()
    return common.Job(
        name="word_vectors", initialise=initialise, loss_fn=None, metric_fn=metric_fn,
        metric=("loss", "min"), per_step={"words": tokens.raw_words // stream.steps_per_epoch},
        feed=common.Feed(stream.batches, lambda: evaluation_batches(Arrays(pairs), 512)),
        step=word2vec_step(
            model, learning_rate=lambda step: jnp.asarray(rate(step)), micro_batch=micro_batch
        ),
        tx=optax.GradientTransformation(initial_sums, optax.identity().update),
        rules=TENSOR_PARALLEL,
    )  # fmt: skip


def main(_: list[str]) -> None:
    words.check_flags()
    if FLAGS.vectors:
        words.evaluate_file()
        return
    workdir: pathlib.Path = common.start("word_vectors")
    common.refuse_parts()
    tokens = words.load_tokens(workdir)
    if FLAGS.model == "glove":
        job = glove.make_job(tokens, pathlib.Path(FLAGS.corpus_dir or workdir / "corpus"))
        outcome = common.train(job, workdir)
        learnt = glove_vectors(outcome.state.params, how=FLAGS.combine)
        vectors = Vectors(list(tokens.words), learnt)
    else:
        model = make_model(tokens)
        job = make_job(model, tokens)
        outcome = common.train(job, workdir)
        vectors = learnt_vectors(model, tokens, outcome.state.params)
    words.write(workdir, vectors)
    if FLAGS.subwords:
        vectors = words.with_unseen(vectors, outcome.state.params)
    scores = words.evaluate(vectors)
    metrics = {**outcome.metrics, **scores.metrics}
    common.finish(job, workdir, dataclasses.replace(outcome, metrics=metrics))
    if FLAGS.report:
        words.report(workdir, vectors, scores)


if __name__ == "__main__":
    common.launch(main)
