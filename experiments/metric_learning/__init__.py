"""Metric learning: an embedding in which pictures of one identity are close to each other.

By default a small convolutional net on glyphs, the characters of matplotlib's fonts, which need no
network. It is tested on characters that it was not trained on, and on whole scripts. `--data_path`
takes a folder of pictures by identity, such as persons; `--model` picks the encoder, `--loss` and
`--mining` what it is trained to. A batch has --pictures of each of --batch_size / --pictures
identities.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch
from dlcore.data import (
    IdentityLoader,
    channel_moments,
    evenly_spaced,
    labels_of,
    load_identities,
    read_images,
    read_one_shot_runs,
)
from dlcore.data.one_shot_runs import OFFICIAL
from dlcore.errors import InputError
from dlcore.launch.fields import (
    LARGEST,
    LARGEST_NUMBER,
    choice,
    integer,
    names,
    number,
    path,
    switch,
    text,
    texts,
)
from dlcore.launch.loading import trained_by
from dlcore.launch.options import parse_options
from dlcore.launch.weights import adopt_inside
from dlcore.losses import DISTANCES, MINING, batch_pairs
from dlcore.metrics import pair_distances
from dlcore.models import IMAGE_MODELS, image_spec
from dlcore.models.embedding_net import ENCODER, LOSSES, PLAIN, EmbeddingNet, Objective
from dlcore.nn.augment import OF_ONE_PICTURE, augmentation_of_one
from dlcore.nn.standardise import standardise
from dlcore.report import Section
from dlcore.types import (
    Activations,
    Aux,
    Batch,
    Mean,
    Measures,
    Params,
    PyTree,
    Rows,
    TrainState,
    Variables,
)

from . import gallery, report
from .evaluation import Setting, one_shot_errors, scores
from .gallery import GalleryGroup

SAMPLE = 10_000  # images that are enough to measure on
_OF_TRIPLETS = {"loss": ("triplet", "soft_margin")}
# Of each loss, the distance that its paper has, and its margin.
_PAPERS: dict[str, tuple[str, float]] = {
    "contrastive": ("l2", 1.0),
    "siamese": ("weighted_l1", 0.0),
    "triplet": ("squared_l2", 0.2),
    "soft_margin": ("l2", 0.0),
    "info_nce": ("cosine", 0.0),
    "arcface": ("cosine", 0.5),
    "prototypical": ("squared_l2", 0.0),
}
_WITH_MARGIN = tuple(loss for loss, (_, margin) in _PAPERS.items() if margin)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    GalleryGroup,
    launch.Config,
    dataset="glyphs",
    steps=1000,
    batch_size=128,
    learning_rate=2e-3,
    schedule="cosine",
    warmup_steps=50,
    weight_decay=0.05,
    eval_every=500,
):
    """The configuration of an embedding."""

    # A micro-batch would lack the pairs with the others.
    group_conditions = {"accumulate": {"loss": ("arcface",)}}

    model: str = choice("conv4", IMAGE_MODELS, "encoder, with its last layer replaced")
    option: tuple[str, ...] = texts(
        "NAME=VALUE of the encoder, such as width=0.5; a wrong name lists all"
    )
    embedding: int = integer(64, 1, 1 << 16, "dimensions of an embedding")
    normalise: bool = switch(True, "project embeddings onto the unit sphere")
    distance: str | None = choice(
        None, sorted({*PLAIN} - {"l1"}), "distance of embeddings; default that of the loss's paper"
    )
    loss: str = choice("info_nce", LOSSES, "loss that trains the embedding")
    mining: str = choice(
        "semi_hard", MINING, "which triplets of a batch the loss takes", when=_OF_TRIPLETS
    )
    margin: float | None = number(
        None,
        1e-6,
        LARGEST_NUMBER,
        "margin of the loss; default that of its paper",
        when={"loss": _WITH_MARGIN},
    )
    temperature: float = number(
        0.1, 1e-6, LARGEST_NUMBER, "temperature of the softmax", when={"loss": ("info_nce",)}
    )
    scale: float = number(
        64.0, 1e-6, LARGEST_NUMBER, "scale of the cosines", when={"loss": ("arcface",)}
    )
    pictures: int = integer(4, 2, LARGEST, "pictures of each identity in a batch")
    shots: int = integer(
        1,
        1,
        LARGEST,
        "known pictures of each identity, in N-way k-shot tests and prototypical networks",
    )
    ways: int = integer(20, 2, LARGEST, "identities of an N-way test, or all that there are")
    within_groups: bool = switch(
        False, "draw the identities of an N-way test from one group, such as an alphabet"
    )
    image_size: int | None = integer(
        None, 1, 1 << 15, "side of the squares in pixels; default the encoder's or the data's own"
    )
    augment: str = text(
        "affine",
        "random changes of training pictures, with numbers where wanted, as flip,crop:4; "
        f"steps: {', '.join(OF_ONE_PICTURE)}",
    )
    test_groups: tuple[str, ...] = names("groups to test on, where the data has no test part")
    validation_groups: tuple[str, ...] = names(
        "groups to hold out of the training data for evaluations, instead of --validation"
    )
    init_from: str | None = path(
        None, "start from the encoder of this run or file (.safetensors, .pth)"
    )
    init_prefix: str | None = text(
        None, "with --init_from=FILE, prefix of the names to take, such as model_ema"
    )
    omniglot_runs: str | None = path(
        None,
        "test a trained run by Omniglot's official one-shot tests, in this folder or all_runs.zip",
        free=True,
    )

    def for_check(self) -> "Config":
        return dataclasses.replace(super().for_check(), augment="none")

    def shrunk(self) -> "Config":
        return dataclasses.replace(super().shrunk(), pictures=2, shots=1)


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that an embedding remembers.

    Attributes:
        image_shape: (H, W, C).
        identities: how many there are to train on.
        mean: of each channel, in units of 0..255.
        deviation: of each channel.
        bits: of the values in image files that have more than 8.
    """

    image_shape: tuple[int, int, int]
    identities: int
    mean: np.ndarray = dataclasses.field(compare=False)
    deviation: np.ndarray = dataclasses.field(compare=False)
    bits: int = 16


class MetricLearning(launch.Task[Config, Info]):
    """An embedding of pictures."""

    reads = "images"
    asks = ("predict", *gallery.ASKS, "omniglot_runs")
    metric: tuple[str, Literal["min", "max"]] = ("eer", "min")

    def data(self) -> launch.Data[Info]:
        config = self.config
        self.augment = augmentation_of_one(config.augment)
        data = load_identities(
            config.dataset,
            data_dir=config.data_dir,
            data_path=config.data_path,
            image_size=config.image_size or image_spec(config.model).image_size,
            test_groups=config.test_groups,
            validation=config.validation,
            validation_groups=config.validation_groups,
            seed=config.seed,
        )
        for note in data.notes:
            launch.say(note)
        count = {part: len(found) for part, found in data.identity_names.items()}
        launch.say(
            f"{config.model} on {data.name}: {len(data.train):,} pictures of {count['train']:,} "
            f"identities to train on, {len(data.test):,} of {count['test']:,} others to test, "
            f"shape {data.image_shape}"
        )
        loader = IdentityLoader(
            data.train,
            labels_of(data.train),
            identities_of_batch(config, count["train"]),
            config.pictures,
            seed=config.seed,
            **self.part(),
        )
        if repeated := loader.note():
            launch.say(repeated)
        splits = {"test": data.test, "validation": data.validation}
        if data.second is not None and data.second_name is not None:
            splits[data.second_name] = data.second
        self.splits = {name: split for name, split in splits.items() if split is not None}
        self.names = data.identity_names["test"]
        parts = {data.second_name: "second"}
        self.groups = {name: np.array(data.groups[parts.get(name, name)]) for name in self.splits}
        mean, deviation = channel_moments(evenly_spaced(data.train, SAMPLE))
        self.info = info = Info(data.image_shape, count["train"], mean, deviation, data.bits)
        jax.eval_shape(self.init, jax.random.key(0))  # Says now what does not go together.
        # What is drawn of a split, such as its pairs, is the same in all evaluations.
        self.settings = {name: self._setting(name) for name in self.splits}
        passes = {name: self.passes(split) for name, split in self.splits.items()}
        return launch.Data(
            loader.batches,
            passes.pop("test"),
            info,
            passes.pop("validation", None),
            further=passes,
        )

    @functools.cached_property
    def net(self) -> EmbeddingNet:
        """The network."""
        config = self.config
        of_paper, margin = _PAPERS[config.loss]
        distance = config.distance or of_paper
        if config.mining == "distance_weighted" and (distance != "l2" or not config.normalise):
            raise InputError(
                "--mining=distance_weighted is for L2 distances on the unit sphere, not for "
                f"--distance={distance}{'' if config.normalise else ' --nonormalise'}; give "
                "--distance=l2 --normalise, or another --mining"
            )
        if config.loss == "prototypical" and config.shots >= config.pictures:
            raise InputError(
                f"--shots={config.shots} of --pictures={config.pictures} leave no picture to "
                "recognise; give more --pictures or fewer --shots"
            )
        build = image_spec(config.model).build
        options = parse_options(config.model, build, config.option)
        objective = Objective(
            config.loss,
            distance,
            margin if config.margin is None else config.margin,
            config.mining,
            config.temperature,
            config.scale,
            config.shots,
            self.info.identities,
        )
        return EmbeddingNet(
            functools.partial(build, num_classes=config.embedding, **options),
            config.embedding,
            objective,
            config.normalise,
        )

    @property
    def distance(self) -> str:
        """The distance, of `losses.DISTANCES`, between embeddings as the net returns them."""
        return PLAIN[self.net.objective.distance]

    def forward(self, variables: Variables, images: jax.Array, **options: Any) -> Any:
        """Maps images of 0..255 to what the network's apply gives, in the parameters' type."""
        x = standardise(images, self.info.mean, self.info.deviation, variables["params"])
        return self.net.apply(variables, x, **options)

    def init(self, key: jax.Array) -> Variables:
        variables: Variables = self.net.init(key, jnp.zeros((1, *self.info.image_shape)))
        return variables

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        augment_key, dropout_key, key = jax.random.split(rng, 3)
        batch = self.augment(augment_key, dict(batch))
        (embeddings, _), new_state = self.forward(
            {"params": params, **model_state},
            batch["image"],
            train=True,
            rngs={"dropout": dropout_key},
            mutable=list(model_state),
        )
        examples = embeddings, batch["label"], batch["weight"]
        found = self.net.apply({"params": params}, *examples, key, method="losses")
        pairs = batch_pairs(*examples, distance=DISTANCES[self.distance])
        every = (pairs.positive | pairs.negative).astype(pairs.distances.dtype)
        distances = jax.lax.stop_gradient(pairs.distances)
        return Mean.of(*found), Aux(dict(new_state), {"distance": Mean.of(distances, every)})

    def metrics(self, state: TrainState, batch: Batch) -> Measures:
        variables = {"params": state.params, **state.model_state}
        embeddings, _ = self.forward(variables, batch["image"])
        return {"embeddings": Rows(embeddings.astype(jnp.float32), batch["weight"])}

    def _setting(self, split: str) -> Setting:
        """Returns how a split is judged.

        Raises:
            InputError: for --within_groups of data whose groups are too small.
        """
        config = self.config
        labels = labels_of(self.splits[split])
        groups = self.groups[split][labels] if config.within_groups else None
        return Setting.of(labels, groups, ways=config.ways, shots=config.shots)

    def summarise(self, measures: dict[str, Any], split: str) -> dict[str, float]:
        return scores(measures["embeddings"], self.distance, self.settings[split])

    def adopt(self, state: TrainState) -> TrainState:
        config = self.config
        if config.init_from is None:
            return state
        return adopt_inside(
            state,
            config.init_from,
            config.init_prefix,
            self.net.build(),
            self.info.image_shape,
            module=ENCODER,
            name=config.model,
        )

    @functools.cached_property
    def collapsed_loss(self) -> float:
        """The loss of a batch whose embeddings are all equal, by the parameters at the start."""
        config = self.config
        rows = config.batch_size // config.pictures * config.pictures
        labels = jnp.arange(rows, dtype=jnp.int32) // config.pictures
        x = jnp.full((rows, config.embedding), config.embedding**-0.5)

        def loss(key: jax.Array) -> jax.Array:
            params = self.init(key)["params"]
            examples = x, labels, jnp.ones(rows), key
            found = self.net.apply({"params": params}, *examples, method="losses")
            return Mean.of(*found).compute()

        return float(jax.jit(loss)(jax.random.key(config.seed)))

    def watch(self, metrics: Mapping[str, float]) -> str | None:
        config, objective = self.config, self.net.objective
        # The distance that the loss can tell from 0.
        unit = {"info_nce": objective.temperature, "arcface": 1.0}.get(
            config.loss, objective.margin or 1.0
        )
        is_close = metrics["distance"] <= 0.1 * unit
        if not is_close or not metrics["loss"] >= 0.9 * self.collapsed_loss:  # or NaN
            return None
        return (
            f"the embeddings collapse to one point: their mean distance is "
            f"{metrics['distance']:.2g}, and the loss {metrics['loss']:.3f} is that of equal ones, "
            f"{self.collapsed_loss:.3f}. Likely cause: a learning rate that is too high, or hard "
            "negatives before the net can tell them apart. Remedy: a lower --learning_rate, more "
            "--warmup_steps, --mining=semi_hard or all instead of hard, or --loss=info_nce"
        )

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        def forward(variables: Variables, images: jax.Array) -> tuple[Any, Activations]:
            embeddings, activations = self.forward(variables, images)
            # What the loss alone reads is used too.
            of_loss = self.net.apply({"params": variables["params"]}, method="of_loss")
            return (embeddings, of_loss), activations

        return launch.Check(forward, "image")

    def assess(self, outcome: launch.Outcome) -> launch.Outcome:
        """Adds what the distances of pixels would reach, and thresholds for verification."""
        found: dict[str, float] = {}
        for name, split in self.splits.items():
            if name != "validation":
                start = "pixels" if name == "test" else f"{name}_pixels"
                pixels = split.gather(np.arange(len(split)))["image"]
                judged = scores(pixels.reshape(len(pixels), -1), "l2", self.settings[name])
                found |= {f"{start}_{metric}": value for metric, value in judged.items()}
        setting = self.settings["test"]
        part = "validation" if "validation" in self.splits else "test"
        pairs = self.settings[part].pairs
        distances = pair_distances(
            self.distance, self.embedded(outcome.variables, part), pairs.first, pairs.second
        )
        kept = gallery.thresholds(distances, pairs.same)
        if part == "test":
            launch.say(
                "the thresholds of verification are those of test pairs, on which they look better "
                "than they are; --validation or --validation_groups holds identities out for them"
            )
        return outcome.extended(
            found,
            ways=setting.ways,
            shots=setting.shots,
            thresholds=kept,
            thresholds_found_on=part,
        )

    def embedded(self, variables: Variables, split: str) -> np.ndarray:
        """Returns the embeddings of the pictures of a split, as `predict` does."""
        images = self.splits[split].gather(np.arange(len(self.splits[split])))["image"]
        return self.predict(self.computing(variables), [*images])

    def report(self, outcome: launch.Outcome) -> list[Section]:
        images = self.splits["test"].gather(np.arange(len(self.splits["test"])))["image"]
        thresholds = outcome.summary["thresholds"]
        return report.sections(
            images,
            self.embedded(outcome.variables, "test"),
            self.settings["test"],
            self.names,
            distance=self.distance,
            threshold=thresholds.get(self.config.false_accept_rate),
        )

    @classmethod
    def use(cls, config: Config, given: Collection[str]) -> bool:
        asked = {*cls.asks} & {*given}
        if not asked:
            return False
        trained = trained_by(cls, config, given)
        task = trained.task
        assert isinstance(task, cls)
        if {*gallery.ASKS} & asked:
            for answer in gallery.ask(trained, task.distance):
                print(json.dumps(answer, ensure_ascii=False))
        if trained.config.omniglot_runs is not None:
            print(json.dumps(task.official_errors(trained.predict)))
        return True

    def official_errors(self, embed: Callable[[Sequence[Any]], np.ndarray]) -> dict[str, Any]:
        """Returns the errors in Omniglot's official tests, of embeddings and of pixels."""
        runs = read_one_shot_runs(self.config.omniglot_runs or "")
        if len(runs) != OFFICIAL:
            launch.say(f"{self.config.omniglot_runs} has {len(runs)} of the {OFFICIAL} runs")

        def flat(pictures: Sequence[Any]) -> np.ndarray:
            images = read_images(pictures, self.info.image_shape, self.info.bits)
            return images.reshape(len(images), -1)

        errors = one_shot_errors(runs, embed, self.distance)
        by_run = {run.name: error for run, error in zip(runs, errors.tolist(), strict=True)}
        pixels = one_shot_errors(runs, flat, "l2")
        return {
            "runs": len(runs),
            "error": float(errors.mean()),
            "pixels_error": float(pixels.mean()),
            "errors": by_run,
        }

    @functools.cached_property
    def _embed(self) -> Any:
        return jax.jit(
            lambda variables, images: self.forward(variables, images)[0].astype(jnp.float32)
        )

    def predict(self, variables: Variables, inputs: Sequence[Any]) -> np.ndarray:
        """Returns the embeddings, float32 [N, D].

        Args:
            variables: of the network.
            inputs: uint8 arrays [H, W, C] of the run's shape, or paths of image files, which are
                brought to it as --image_size does.
        """
        images = read_images(inputs, self.info.image_shape, self.info.bits)
        size = 64
        padded = np.concatenate([images, np.repeat(images[-1:], -len(images) % size, axis=0)])
        starts = range(0, len(padded), size)
        parts = [np.asarray(self._embed(variables, padded[at : at + size])) for at in starts]
        return np.concatenate(parts)[: len(images)]

    def answers(self, inputs: Sequence[Any], outputs: Any) -> list[dict[str, Any]]:
        return [{"embedding": np.asarray(output).tolist()} for output in outputs]


def identities_of_batch(config: Config, count: int) -> int:
    """Returns how many identities a batch has.

    Raises:
        InputError: when --batch_size is no multiple of --pictures that the data can fill.
    """
    identities, rest = divmod(config.batch_size, config.pictures)
    if rest or identities < 2:
        nearest = max(2, round(config.batch_size / config.pictures)) * config.pictures
        raise InputError(
            f"--batch_size={config.batch_size} is not {config.pictures} --pictures of each of two "
            f"or more identities; give --batch_size={nearest}"
        )
    if identities > count:
        raise InputError(
            f"--batch_size={config.batch_size} takes {identities} identities with "
            f"{config.pictures} --pictures each, and there are {count} to train on; give "
            f"--batch_size={count * config.pictures} or less"
        )
    return identities
