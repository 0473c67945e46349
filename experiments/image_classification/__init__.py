"""Image classification: convolutional and other networks on images by class.

By default LeNet-5 on scikit-learn's handwritten digits (1,500 to train on, 297 held out), which
needs no network. `--data_path` takes a folder of images by class or a CSV table of images and their
classes, `--dataset` any prepared TFDS data set with an image and a label. With `--label_separator`
the images of a table have any number of labels. `--predict=FOLDER --workdir=DIR` classifies images.
"""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch
from dlcore.check import activation_deviations
from dlcore.data import (
    ImageData,
    Split,
    balanced_positive_weights,
    balanced_weights,
    channel_moments,
    evaluation_batches,
    evenly_spaced,
    labels_of,
    read_images,
)
from dlcore.errors import InputError, choose
from dlcore.launch.fields import (
    FILES,
    LARGEST,
    LARGEST_NUMBER,
    Condition,
    choice,
    integer,
    names,
    number,
    path,
    switch,
    text,
    texts,
)
from dlcore.launch.options import parse_options
from dlcore.launch.uncertainty import UncertaintyConfig, uncertain_answers, with_dropout
from dlcore.launch.weights import IMAGENET
from dlcore.metrics.uncertainty import Uncertain
from dlcore.models import IMAGE_MODELS, image_spec
from dlcore.models.cnn.torch_names import family_of
from dlcore.nn.augment import STEPS, Augment, augmentation, principal_colours
from dlcore.nn.folding import fold_batch_norm, folded_norms
from dlcore.nn.remat import POLICIES
from dlcore.nn.standardise import standardise
from dlcore.nn.views import VIEWS, over_views
from dlcore.report import Section
from dlcore.report.filters import first_filters
from dlcore.types import Aux, Batch, Mean, Measures, Params, PyTree, TrainState, Variables

from . import report, transfer
from .labelling import Labelling, OneClass, SeveralLabels

SAMPLE = 10_000  # images that are enough to measure on
# Fields of images that have one class each, and of those that may have several labels.
_ONE: Condition = {"label_separator": (None,)}
_SEVERAL: Condition = {"label_separator": lambda separator: separator is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    launch.Config,
    UncertaintyConfig,
    dataset="digits",
    steps=2000,
    batch_size=128,
    learning_rate=2e-3,
    schedule="cosine",
    weight_decay=0.05,
    eval_every=250,
):
    """The configuration of an image classifier."""

    model: str = choice("lenet5", IMAGE_MODELS, "network to train")
    option: tuple[str, ...] = texts(
        "NAME=VALUE of the model, such as width=0.125; a wrong name lists all"
    )
    image_size: int | None = integer(
        None, 1, 1 << 15, "side of the images in pixels; default the model's or the data's own"
    )
    augment: str = text(
        "affine",
        "random changes of training images, with numbers after colons, such as flip,crop:4; "
        f"steps: {', '.join(STEPS)}",
    )
    remat: str = choice(
        "none",
        POLICIES,
        "which intermediate values the gradient computes again, to save memory",
        free=True,
    )
    allow_empty_classes: bool = switch(False, "accept classes of --data_path without images")
    classes: tuple[str, ...] = names("take only the examples of these classes")
    examples: int | None = integer(
        None, 1, LARGEST, "training examples to take, drawn at random; default all"
    )
    label_separator: str | None = text(
        None,
        "separator of the labels of an image in the table of --data_path, such as ;",
        when=FILES,
    )
    threshold: float = number(
        0.5, 0, 1, "probability above which a label is predicted", free=True, when=_SEVERAL
    )
    positive_weights: tuple[str, ...] = names(
        "balanced gives the examples with a label the same total weight as those without it; or "
        "NAME:WEIGHT sets the weight of one label, where others weigh 1",
        when=_SEVERAL,
    )
    label_smoothing: float = number(
        0.0, 0, 1, "share of the target spread over all classes, or over yes and no of each label"
    )
    class_weights: tuple[str, ...] = names(
        "balanced gives all classes the same total weight in the loss; or NAME:WEIGHT of a class, "
        "where others weigh 1",
        when=_ONE,
    )
    sampling: str = choice(
        "uniform",
        ("uniform", "balanced"),
        "draw each example equally often, or (balanced) each class",
        when=_ONE,
    )
    auxiliary_weight: float = number(
        0.3, 0, LARGEST_NUMBER, "weight of auxiliary heads' losses; 0.3 is GoogLeNet's"
    )
    moments: str = choice(
        "data",
        ("data", "imagenet", "unit"),
        "mean and deviation of the pixels that scale the images; unit makes them 0 to 1",
    )
    views: str = choice(
        "one", VIEWS, "average the predictions over these views of a test image", free=True
    )
    fold_batch_norm: bool = switch(
        False,
        "for --predict, fold batch normalisation into the layers before it",
        free=True,
    )
    init_from: str | None = path(
        None, "start from the weights of this run, or of a .safetensors or .pth file"
    )
    init_prefix: str | None = text(
        None, "with --init_from=FILE, prefix of the names to take, such as model_ema"
    )
    export: str | None = path(
        None, ".safetensors file for the weights by torchvision's names", free=True
    )
    transfer: str | None = choice(
        None,
        ("head", "top", "all"),
        "with --init_from, train a new output layer alone, with the "
        f"{transfer.TOP} modules before it, or all",
    )
    top: int = integer(5, 1, LARGEST, "classes that --predict lists", free=True, when=_ONE)

    def for_check(self) -> "Config":
        return dataclasses.replace(super().for_check(), augment="none")


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that a classifier remembers.

    Attributes:
        class_names: the name of each label.
        image_shape: (H, W, C) of the images.
        mean: of each channel, in units of 0..255.
        deviation: of each channel.
        bits: of the values in image files that have more than 8.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: np.ndarray = dataclasses.field(compare=False)
    deviation: np.ndarray = dataclasses.field(compare=False)
    bits: int = 16


class ImageClassification(launch.Task[Config, Info]):
    """A classifier of images, trained by cross-entropy."""

    reads = "images"
    class_weights: np.ndarray | None = None  # known where it is trained

    def data(self) -> launch.Data[Info]:
        config = self.config
        if config.export is not None:
            family_of(self.build(10))  # Says now, not after training, that there are no names.
        spec = image_spec(config.model)
        data = self.images(
            image_size=config.image_size or spec.image_size,
            allow_empty=config.allow_empty_classes,
            label_separator=config.label_separator,
        )
        data = restrict(data, config)
        launch.say(
            f"{config.model} on {data.name}: {len(data.train):,} images to train on, "
            f"{len(data.test):,} to test, {len(data.class_names)} classes, shape {data.image_shape}"
        )
        self.augment = make_augment(data, config.augment)
        self.test = data.test
        mean, deviation = moments(data, config.moments)
        info = Info(data.class_names, data.image_shape, mean, deviation, data.bits)
        self.class_weights = make_class_weights(data, config)
        self.metric = self.labelling_of(info).metric

        def balanced(train: Split) -> np.ndarray:
            labels = labels_of(train)
            return balanced_weights(labels, len(data.class_names))[labels]

        weights = balanced if config.sampling == "balanced" else None
        return self.split_data(data.train, data.test, info, weights)

    def labelling_of(self, info: Info) -> Labelling:
        """Returns how the images of some data are labelled."""
        config = self.config
        smoothing, weights = config.label_smoothing, self.class_weights
        if config.label_separator is None:
            return OneClass(info.class_names, smoothing, weights, config.top)
        return SeveralLabels(info.class_names, smoothing, weights, config.threshold)

    @functools.cached_property
    def labelling(self) -> Labelling:
        """How the images are labelled."""
        return self.labelling_of(self.info)

    def build(self, num_classes: int) -> nn.Module:
        """Returns the network of --model with its --option, see `model_options`."""
        options = model_options(self.config)
        return image_spec(self.config.model).build(num_classes=num_classes, **options)

    @functools.cached_property
    def model(self) -> nn.Module:
        """The network."""
        return self.build(len(self.info.class_names))

    def forward(self, variables: Variables, images: jax.Array, **options: Any) -> Any:
        """Maps images of 0..255 to what the network's apply gives, in the parameters' type."""
        x = standardise(images, self.info.mean, self.info.deviation, variables["params"])
        with folded_norms() if self.config.fold_batch_norm else contextlib.nullcontext():
            return self.model.apply(variables, x, **options)

    def computing(self, variables: Variables) -> Variables:
        if self.config.fold_batch_norm:
            variables = self.folded(variables)
        return super().computing(variables)

    def folded(self, variables: Variables) -> Variables:
        """Returns the variables with batch normalisation folded, and says what is not folded.

        Raises:
            InputError: when nothing can be folded.
        """
        one = jax.ShapeDtypeStruct((1, *self.info.image_shape), jnp.float32)
        found = fold_batch_norm(lambda *args: self.forward(*args)[0], variables, one)
        if not found.norms:
            raise InputError(
                f"{self.config.model} has no batch normalisation that follows a layer; leave out "
                "--fold_batch_norm"
            )
        kept = f"; not folded, since they follow no layer alone: {', '.join(found.kept)}"
        count = f"{len(found.norms)} batch normalisations folded into the layers before them"
        launch.say(count + kept if found.kept else count)
        return found.variables

    def init(self, key: jax.Array) -> Variables:
        variables: Variables = self.model.init(key, jnp.zeros((1, *self.info.image_shape)))
        return variables

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        augment_key, dropout_key = jax.random.split(rng)
        batch = self.augment(augment_key, dict(batch))
        (logits, activations), new_state = self.forward(
            {"params": params, **model_state},
            batch["image"],
            # A frozen body is measured as it is: no noise, and no new statistics of its batches.
            train=self.config.transfer != "head",
            rngs={"dropout": dropout_key},
            mutable=list(model_state),
        )

        labels, weight = batch["label"], batch["weight"]
        loss = self.labelling.loss(logits, labels, weight)
        for name, head in activations.items():
            if name.startswith("auxiliary_"):
                auxiliary = self.labelling.loss(head, labels, weight).total
                loss = Mean(loss.total + self.config.auxiliary_weight * auxiliary, loss.weight)
        metrics = self.labelling.training_measures(logits, labels, weight)
        return loss, Aux(dict(new_state), metrics)

    def metrics(self, state: TrainState, batch: Batch) -> Measures:
        logits = self.logits({"params": state.params, **state.model_state}, batch["image"])
        return self.labelling.measures(logits, batch["label"], batch["weight"])

    def summarise(self, measured: dict[str, Any], split: str) -> dict[str, float]:
        return self.labelling.summarise(measured)

    def logits(self, variables: Variables, images: jax.Array, **options: Any) -> jax.Array:
        """Returns logits, or those of the mean of the probabilities over --views."""

        def predict(images: jax.Array) -> jax.Array:
            logits: jax.Array = self.forward(variables, images, **options)[0]
            return logits

        return over_views(predict, VIEWS[self.config.views], self.labelling.mean)(images)

    def frozen(self) -> tuple[tuple[str, bool], ...]:
        return transfer.frozen_rules(self.config, self.model, self.info.image_shape)

    def adopt(self, state: TrainState) -> TrainState:
        return transfer.adopt(state, self.config, self.model, self.info.image_shape)

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        return launch.Check(self.forward, "image", self.labelling.chance)

    def finish(self, outcome: launch.Outcome) -> launch.Outcome:
        transfer.export(outcome.variables, self.config, self.model)
        if not self.config.report:
            return outcome
        sample = evenly_spaced(self.test, 64)
        images = jnp.asarray(sample.gather(np.arange(len(sample)))["image"])
        self.layers = {
            name: activation_deviations(self.forward, variables, images)
            for name, variables in (
                ("before training", self.first_variables()),
                ("after training", outcome.variables),
            )
        }
        return outcome.extended({}, layers=self.layers["before training"])

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        test = evenly_spaced(self.test, SAMPLE)
        everything = test.gather(np.arange(len(test)))
        return report.image_sections(
            everything["image"],
            everything["label"],
            self.outputs(outcome.variables, test),
            labelling=self.labelling,
            filters=first_filters(outcome.variables["params"], self.info.image_shape),
            layers=self.layers,
        )

    def outputs(self, variables: Variables, split: Split) -> np.ndarray:
        """Returns the probabilities of the classes for all images of a split, float32 [N, K]."""
        batches = evaluation_batches(split, self.config.batch_size)
        outputs = [self.probabilities(variables, batch["image"]) for batch in batches]
        return np.concatenate(outputs)[: len(split)]

    @functools.cached_property
    def probabilities(self) -> Callable[[Variables, Any], jax.Array]:
        """Maps (variables, images [N, H, W, C]) to the probabilities of the classes, float32."""
        return jax.jit(
            lambda variables, images: self.labelling.probabilities(
                self.logits(variables, images).astype(jnp.float32)
            )
        )

    @functools.cached_property
    def sampled_probabilities(self) -> Callable[[Variables, Any, jax.Array], jax.Array]:
        """Maps (variables, images, key) to the probabilities by the thinned network of the key."""
        return with_dropout(
            lambda variables, images, key: self.labelling.probabilities(
                self.logits(variables, images, rngs={"dropout": key}).astype(jnp.float32)
            )
        )

    def predict(self, variables: Variables, inputs: Sequence[Any]) -> np.ndarray | Uncertain:
        """Returns the probabilities of the classes, float32 [N, K].

        With --dropout_samples they are a mean over thinned networks, the same ones for all inputs,
        and `Uncertain` tells how sure it is.

        Args:
            variables: of the network.
            inputs: uint8 arrays [H, W, C] of the run's shape, or paths of image files, which are
                brought to it as --image_size does.
        """
        images = read_images(inputs, self.info.image_shape, self.info.bits)
        size = 64  # for all numbers, so that no bit depends on how many there are
        padded = np.concatenate([images, np.repeat(images[-1:], -len(images) % size, axis=0)])

        def over(probabilities: Callable[[Any], jax.Array]) -> np.ndarray:
            starts = range(0, len(padded), size)
            parts = [np.asarray(probabilities(padded[at : at + size])) for at in starts]
            return np.concatenate(parts)[: len(images)]

        if self.config.dropout_samples is None:
            return over(lambda images: self.probabilities(variables, images))
        samples = self.config.samples(
            lambda key: over(lambda images: self.sampled_probabilities(variables, images, key))
        )
        return self.labelling.uncertainty(samples)

    def answers(self, inputs: Sequence[Any], outputs: Any) -> list[dict[str, Any]]:
        if isinstance(outputs, Uncertain):
            return uncertain_answers(self.labelling.answers(outputs.probabilities), outputs)
        return self.labelling.answers(outputs)


def model_options(config: Config) -> dict[str, Any]:
    """Returns the keyword arguments that --option and --remat give a network.

    Raises:
        InputError: for an option that the model does not have, or a value that is none.
    """
    build = image_spec(config.model).build
    known = inspect.signature(build).parameters
    options = parse_options(config.model, build, config.option)
    if config.check and "scan_from" in known:
        options["scan_from"] = 1_000_000  # The tables of layers do not look into loops.
    if config.remat != "none":
        if "remat" not in known:
            raise InputError(f"--model={config.model} has no --remat; residual and dense nets have")
        options["remat"] = config.remat
    return options


def restrict(data: ImageData, config: Config) -> ImageData:
    """Returns the data of --classes, with --examples to train on; labels stay as they are.

    Raises:
        InputError: for a class that there is not, or more examples than there are.
    """
    train, test = data.train, data.test
    if config.classes:
        for name in config.classes:
            if name not in data.class_names:
                raise choose("class", name, data.class_names)
        wanted = [data.class_names.index(name) for name in config.classes]
        train, test = (
            split.subset(np.flatnonzero(_is_of(labels_of(split), wanted)))
            for split in (train, test)
        )
    if config.examples is not None:
        if config.examples > len(train):
            raise InputError(
                f"--examples={config.examples}, but there are {len(train)} to train on"
            )
        order = np.random.default_rng(config.seed).permutation(len(train))
        train = train.subset(np.sort(order[: config.examples]))
    return dataclasses.replace(data, train=train, test=test)


def _is_of(labels: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    """Returns which examples are of one of some classes, bool [N]; labels are [N] or [N, K]."""
    return np.asarray(np.isin(labels, wanted) if labels.ndim == 1 else labels[:, wanted].any(1))


def make_class_weights(data: ImageData, config: Config) -> np.ndarray | None:
    """Returns the weight of each class, or of its positives, in the loss [K]; None where all are 1.

    Raises:
        InputError: for a class that there is not, or a weight that is no positive number.
    """
    flag = "class_weights" if config.label_separator is None else "positive_weights"
    given: tuple[str, ...] = getattr(config, flag)
    if not given:
        return None
    if given == ("balanced",):
        labels = labels_of(data.train)
        if config.label_separator is None:
            return balanced_weights(labels, len(data.class_names))
        return balanced_positive_weights(labels)
    weights = np.ones(len(data.class_names))
    for item in given:
        name, _, text = item.rpartition(":")
        try:
            weight = float(text)
        except ValueError:
            weight = np.nan
        if not 0 < weight < np.inf:
            raise InputError(
                f"--{flag}={item} is neither balanced nor NAME:WEIGHT with a weight above 0"
            )
        if name not in data.class_names:
            raise choose("class", name, data.class_names)
        weights[data.class_names.index(name)] = weight
    return weights


def make_augment(data: ImageData, steps: str) -> Augment:
    """Returns the augmentation of --augment."""
    colours = None
    if "lighting" in steps:
        sample = evenly_spaced(data.train, SAMPLE)
        colours = principal_colours(sample.gather(np.arange(len(sample)))["image"])
    return augmentation(steps, num_classes=len(data.class_names), colours=colours)


def moments(data: ImageData, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and deviation of each channel: of at most `SAMPLE` training images by default.

    Raises:
        InputError: for --moments=imagenet of images without colours.
    """
    if source == "data":
        return channel_moments(evenly_spaced(data.train, SAMPLE))
    if source == "unit":
        channels = data.image_shape[-1]
        return np.zeros(channels), np.full(channels, transfer.UNIT)
    if data.image_shape[-1] != 3:
        raise InputError(
            f"--moments=imagenet are of 3 channels, the images of {data.name} have "
            f"{data.image_shape[-1]}; leave it out"
        )
    return IMAGENET
