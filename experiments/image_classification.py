"""Image classification: `python -m experiments.image_classification --model=... --dataset=...`.

By default LeNet-5 on scikit-learn's handwritten digits (1,500 to train on, 297 held out), which
needs no network. `--data_path` takes a folder of images by class, `--dataset` any prepared TFDS
data set with an image and a label.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlcore.analysis import first_filters, image_sections, write_report
from dlcore.data import ImageData, Loader, evaluation_batches, load_images
from dlcore.data.statistics import channel_moments, spread
from dlcore.metrics import Mean, classification
from dlcore.models import IMAGE_MODELS, image_spec
from dlcore.nn.augment import random_affine
from dlcore.train import Aux, LossFn, TrainState
from dlcore.train.state import Batch, MetricFn, Metrics
from experiments import common

FLAGS = flags.FLAGS
common.define_flags(
    dataset="digits", steps=2000, batch_size=128, learning_rate=2e-3, schedule="cosine",
    weight_decay=0.05, eval_every=250,
)  # fmt: skip
flags.DEFINE_string("model", "lenet5", f"one of {', '.join(IMAGE_MODELS)}")
flags.DEFINE_integer("image_size", None, "side in pixels; default the model's or data's own", 1)
flags.DEFINE_enum("augment", "affine", ["none", "affine"], "of the training images")
flags.DEFINE_float("label_smoothing", 0.0, "share of the target spread over all classes", 0, 1)

SAMPLE = 10_000  # images that are enough to measure on
Forward = Callable[..., Any]


def make_forward(model: nn.Module, data: ImageData) -> Forward:
    """(variables, float images of 0..255, ...) -> what the model's apply gives.

    Images are brought to mean 0 and deviation 1 per channel, as measured on at most `SAMPLE`
    training images. --precision is the type of parameters and activations on the way.
    """
    moments = channel_moments(spread(data.train, SAMPLE))
    mean, deviation = (np.float32(moment)[None, None, None] for moment in moments)

    def forward(variables: Any, images: jax.Array, **how: Any) -> Any:
        x = (images - mean) / jnp.maximum(deviation, 1.0)
        if FLAGS.precision == "bfloat16":
            x, params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (x, variables["params"]))
            variables = {**variables, "params": params}
        return model.apply(variables, x, **how)

    return forward


def make_loss(forward: Forward) -> LossFn:
    """The cross-entropy of each image, by its weight."""

    def loss_fn(params: Any, model_state: Any, batch: Batch, rng: jax.Array) -> tuple[Mean, Aux]:
        augment_key, dropout_key = jax.random.split(rng)
        images = batch["image"].astype(jnp.float32)
        if FLAGS.augment == "affine":
            images = random_affine(augment_key, images)
        (logits, _), new_state = forward(
            {"params": params, **model_state}, images,
            train=True, rngs={"dropout": dropout_key}, mutable=list(model_state),
        )  # fmt: skip
        metrics = classification(
            logits, batch["label"], batch["weight"], label_smoothing=FLAGS.label_smoothing
        )
        return metrics.pop("loss"), Aux(dict(new_state), metrics)

    return loss_fn


def make_metrics(forward: Forward) -> MetricFn:
    """Cross-entropy and accuracy in evaluation mode."""

    def metric_fn(state: TrainState, batch: Batch) -> tuple[Metrics, None]:
        logits, _ = forward({"params": state.params, **state.model_state}, batch["image"])
        return classification(logits, batch["label"], batch["weight"]), None

    return metric_fn


def report(workdir: pathlib.Path, forward: Forward, state: TrainState, data: ImageData) -> None:
    """Writes the report, on at most `SAMPLE` test images."""
    test = spread(data.test, SAMPLE)
    variables = {"params": state.params, **state.model_state}
    predict = jax.jit(
        lambda images: jax.nn.softmax(forward(variables, images)[0].astype("float32"))
    )
    batches = evaluation_batches(test, FLAGS.batch_size)
    everything = test.gather(np.arange(len(test)))
    probabilities = np.concatenate([predict(batch["image"]) for batch in batches])[: len(test)]
    sections = image_sections(
        everything["image"], everything["label"], probabilities,
        class_names=data.class_names, filters=first_filters(state.params, data.image_shape),
    )  # fmt: skip
    common.say(f"report: {write_report(workdir, sections)}")


def main(_: list[str]) -> None:
    workdir = common.start("image_classification")
    spec = image_spec(FLAGS.model)
    data = load_images(
        FLAGS.dataset, data_dir=FLAGS.data_dir, data_path=FLAGS.data_path,
        image_size=FLAGS.image_size or spec.image_size,
    )  # fmt: skip
    model = spec.build(num_classes=data.num_classes)
    forward = make_forward(model, data)
    common.say(
        f"{FLAGS.model} on {data.name}: {len(data.train):,} images to train on, "
        f"{len(data.test):,} to test, {data.num_classes} classes, shape {data.image_shape}"
    )
    job = common.Job(
        name="image_classification",
        initialise=lambda key: model.init(key, jnp.zeros((1, *data.image_shape))),
        loss_fn=make_loss(forward), metric_fn=make_metrics(forward),
        feed=common.make_feed(data.train, data.test),
    )  # fmt: skip
    if FLAGS.check:
        FLAGS.augment = "none"
        batch = Loader(data.train, 64, seed=FLAGS.seed).batch(0)
        common.check(job, forward, batch, inputs="image", chance=float(np.log(data.num_classes)))
    outcome = common.train(job, workdir)
    common.finish(job, workdir, outcome)
    if FLAGS.report:
        report(workdir, forward, outcome.state, data)


if __name__ == "__main__":
    common.launch(main)
