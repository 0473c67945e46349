"""Image classification: `python -m experiments.image_classification --model=... --dataset=...`.

By default LeNet-5 on scikit-learn's handwritten digits (1,500 to train on, 297 held out), which
needs no network. `--data_path` takes a folder of images by class, `--dataset` any prepared TFDS
data set with an image and a label.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlcore.check import activation_deviations
from dlcore.data import ImageData, Loader, evaluation_batches, load_images
from dlcore.data.statistics import evenly_spaced
from dlcore.metrics import classification
from dlcore.models import image_spec
from dlcore.nn.augment import Augment
from dlcore.nn.views import VIEWS, over_views
from dlcore.report import first_filters, image_sections, write_report
from dlcore.types import Aux, Batch, LossFn, Mean, MetricFn, Metrics, TrainState
from experiments import common
from experiments.common import images as of_images
from experiments.common.images import Forward

FLAGS = flags.FLAGS
common.define_flags(
    dataset="digits", steps=2000, batch_size=128, learning_rate=2e-3, schedule="cosine",
    weight_decay=0.05, eval_every=250, free=("export", "views"),
)  # fmt: skip
of_images.define_image_flags()


def make_loss(forward: Forward, augment: Augment) -> LossFn:
    """The cross-entropy of each image, by its weight, and of the auxiliary heads."""
    # A frozen body is measured as it is: no noise, and no new statistics of its batches.
    train = FLAGS.transfer != "head"

    def loss_fn(params: Any, model_state: Any, batch: Batch, rng: jax.Array) -> tuple[Mean, Aux]:
        augment_key, dropout_key = jax.random.split(rng)
        batch = augment(augment_key, batch)
        (logits, activations), new_state = forward(
            {"params": params, **model_state}, batch["image"],
            train=train, rngs={"dropout": dropout_key}, mutable=list(model_state),
        )  # fmt: skip

        def metrics_of(logits: jax.Array) -> Metrics:
            return classification(
                logits, batch["label"], batch["weight"], label_smoothing=FLAGS.label_smoothing
            )

        metrics = metrics_of(logits)
        loss = metrics.pop("loss")
        for name, head in activations.items():
            if name.startswith("auxiliary_"):
                total = loss.total + FLAGS.auxiliary_weight * metrics_of(head)["loss"].total
                loss = Mean(total, loss.weight)
        return loss, Aux(dict(new_state), metrics)

    return loss_fn


def make_metrics(forward: Forward) -> MetricFn:
    """Cross-entropy and accuracies in evaluation mode."""

    def metric_fn(state: TrainState, batch: Batch) -> tuple[Metrics, None]:
        logits = make_predict(forward, state)(batch["image"])
        return classification(logits, batch["label"], batch["weight"]), None

    return metric_fn


def make_predict(forward: Forward, state: TrainState) -> Any:
    """Images -> logits, or the logarithm of the mean of the probabilities over --views."""
    variables = {"params": state.params, **state.model_state}
    return over_views(lambda images: forward(variables, images)[0], VIEWS[FLAGS.views])


def report(
    workdir: pathlib.Path, forward: Forward, state: TrainState, data: ImageData,
    layers: dict[str, dict[str, float]],
) -> None:  # fmt: skip
    """Writes the report, on at most `of_images.SAMPLE` test images."""
    test = evenly_spaced(data.test, of_images.SAMPLE)
    logits = make_predict(forward, state)
    predict = jax.jit(lambda images: jax.nn.softmax(logits(images).astype("float32")))
    batches = evaluation_batches(test, FLAGS.batch_size)
    everything = test.gather(np.arange(len(test)))
    probabilities = np.concatenate([predict(batch["image"]) for batch in batches])[: len(test)]
    sections = image_sections(
        everything["image"], everything["label"], probabilities,
        class_names=data.class_names, filters=first_filters(state.params, data.image_shape),
        layers=layers,
    )  # fmt: skip
    common.say(f"report: {write_report(workdir, sections)}")


def main(_: list[str]) -> None:
    workdir = common.start("image_classification")
    if FLAGS.check:
        FLAGS.augment = "none"
    spec = image_spec(FLAGS.model)
    data = of_images.restrict(
        load_images(
            FLAGS.dataset, data_dir=FLAGS.data_dir, data_path=FLAGS.data_path,
            image_size=FLAGS.image_size or spec.image_size,
        )
    )  # fmt: skip
    model = of_images.build_model(spec, data.num_classes)
    forward = of_images.make_forward(model, data)
    common.say(
        f"{FLAGS.model} on {data.name}: {len(data.train):,} images to train on, "
        f"{len(data.test):,} to test, {data.num_classes} classes, shape {data.image_shape}"
    )
    job = common.Job(
        name="image_classification",
        initialise=lambda key: model.init(key, jnp.zeros((1, *data.image_shape))),
        loss_fn=make_loss(forward, of_images.make_augment(data)), metric_fn=make_metrics(forward),
        feed=common.make_feed(data.train, data.test),
        take_over=lambda state: of_images.take_over(state, model),
        frozen=of_images.frozen_rules(model, data.image_shape),
    )  # fmt: skip
    if FLAGS.check:
        batch = Loader(data.train, 64, seed=FLAGS.seed).batch(0)
        common.check(job, forward, batch, inputs="image", chance=float(np.log(data.num_classes)))
    outcome = common.train(job, workdir)
    of_images.export(model, outcome.state)
    if not FLAGS.report:
        common.finish(job, workdir, outcome)
        return
    first = jax.jit(job.initialise)(jax.random.split(jax.random.key(FLAGS.seed))[0])
    state = outcome.state
    last = {"params": state.params, **state.model_state}
    images = evenly_spaced(data.test, 64).gather(np.arange(min(64, len(data.test))))["image"]
    layers = {
        name: activation_deviations(forward, variables, images)
        for name, variables in (("before training", first), ("after training", last))
    }
    common.finish(job, workdir, outcome, layers=layers["before training"])
    report(workdir, forward, state, data, layers)


if __name__ == "__main__":
    common.launch(main)
