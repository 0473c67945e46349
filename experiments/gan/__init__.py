"""Generative adversarial networks: a generator draws what a discriminator takes for real.

By default a DCGAN on scikit-learn's handwritten digits, which needs no network. `--dataset=ring`
draws points of eight planted modes, which can be counted; `--data_path` takes a folder of images by
class or a file of arrays, `--dataset` any prepared TFDS data set of images. `--condition` lets both
players know the class. `--features=RUN` judges by a classifier that image_classification trained.

    --dataset=ring --loss=non_saturating --r1=1

A finished run draws more: `--workdir=DIR --generate=1000 --generate_to=samples.npz`. A step is one
of the discriminator; with `--discriminator_steps=5` the generator moves with every fifth.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore import launch, parallel
from dlcore.data import Split
from dlcore.data.points import MIXTURES, load_points
from dlcore.errors import InputError
from dlcore.launch.fields import LARGEST, LARGEST_NUMBER, choice, integer, number, path
from dlcore.launch.loading import trained_by
from dlcore.launch.task import make_optimizer
from dlcore.losses import ADVERSARIAL, gradient_penalty, r1_penalty
from dlcore.metrics import frechet_distance, mode_scores, precision_recall
from dlcore.models.generative import (
    CONDITIONS,
    NORMS,
    Adversaries,
    DCGANDiscriminator,
    DCGANGenerator,
    DenseDiscriminator,
    DenseGenerator,
    Discriminator,
    Generator,
    check_sides,
    require_same_sizes,
)
from dlcore.report import Section
from dlcore.train import evaluate
from dlcore.train.players import Player, players_optimizer, players_step
from dlcore.types import (
    Aux,
    Batch,
    Mean,
    Measures,
    Params,
    PyTree,
    Rows,
    Step,
    TrainState,
    Variables,
    at_least_float32,
)

from . import report
from .drawn import draw_samples, write_samples
from .judging import Judge, pixels

_STRIP = 64  # samples that are drawn as training goes
# A discriminator with a smaller loss beyond that of no doubt has won.
_WON = 0.01
_WASSERSTEIN = {"loss": ("wasserstein",)}
_CONVOLUTIONS = {"model": ("dcgan",)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    launch.Config,
    steps=3000,
    batch_size=64,
    optimizer="adam",
    hyper=("b1=0.5",),
    learning_rate=5e-4,
    eval_every=1000,
):
    """The configuration of a generative adversarial network."""

    loss: str = choice("non_saturating", ADVERSARIAL, "losses of the two players")
    model: str | None = choice(
        None, ("dense", "dcgan"), "kind of both networks; default dcgan, for points dense"
    )
    width: int = integer(
        32, 1, 1 << 12, "channels of the largest maps of dcgan", when={"model": (None, "dcgan")}
    )
    hidden: int = integer(
        128, 1, 1 << 14, "units of each hidden layer of dense", when={"model": (None, "dense")}
    )
    layers: int = integer(2, 1, 64, "hidden layers of dense", when={"model": (None, "dense")})
    norm: str | None = choice(
        None,
        NORMS,
        "normalisation in the discriminator; default batch for dcgan without a penalty of "
        "gradients, else none",
    )
    noise: int = integer(64, 1, 1 << 14, "values of noise from which an example is drawn")
    condition: str | None = choice(
        None, CONDITIONS, "how the discriminator learns the class; default neither player does"
    )
    discriminator_steps: int = integer(
        1, 1, 1000, "steps of the discriminator for each of the generator"
    )
    gradient_penalty: float = number(
        10.0,
        0,
        LARGEST_NUMBER,
        "weight of the penalty that keeps the critic's gradient at 1 between real and drawn",
        when=_WASSERSTEIN,
    )
    r1: float = number(
        0.0, 0, LARGEST_NUMBER, "weight of the discriminator's squared gradient at real examples"
    )
    image_size: int | None = integer(
        None, 1, 1 << 12, "side of the images in pixels; default the data's own"
    )
    features: str | None = path(
        None, "run of image_classification whose features judge the images", free=True
    )
    generate: int | None = integer(
        None, 1, LARGEST, "samples to draw from the run in --workdir", free=True
    )
    generate_to: str = path(
        "samples.npz", "file of arrays, .npz, or folder of PNG pictures for them", free=True
    )
    generate_seed: int = integer(0, 0, 2**32 - 1, "seed of the noise of --generate", free=True)

    def for_check(self) -> "Config":
        # All that learns moves with each step.
        return dataclasses.replace(super().for_check(), discriminator_steps=1)


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that a run remembers.

    Attributes:
        shape: of an example: (H, W, C), or (2,) for points.
        class_names: the name of each label.
        bits: of the values in image files that have more than 8.
    """

    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    bits: int = 16

    @property
    def images(self) -> bool:
        """Tells whether examples are images."""
        return len(self.shape) == 3


class GAN(launch.Task[Config, Info]):
    """A generator and a discriminator, each with an optimizer, in one state."""

    asks = ("predict", "generate")
    judge: Judge | None = None

    def data(self) -> launch.Data[Info]:
        config = self.config
        for name in ("penalty", "plateau_patience"):
            if getattr(config, name) is not None:
                raise InputError(
                    f"--{name} is for one loss that falls, and here two players have one each; "
                    "leave it out"
                )
        train: Split
        test: Split
        if config.data_path is None and config.dataset in MIXTURES:
            self.mixture, splits = load_points(config.dataset)
            for name, given in (("features", config.features), ("image_size", config.image_size)):
                if given is not None:
                    raise InputError(f"--{name} is for images, and {config.dataset} are points")
            if config.model == "dcgan":
                raise InputError(f"{config.dataset} are points; --model=dense draws them")
            train, test = splits["train"], splits["test"]
            modes = tuple(str(mode) for mode in range(len(self.mixture.centres)))
            self.info = Info((2,), modes)
        else:
            images = self.images(image_size=config.image_size)
            train, test = images.train, images.test
            self.info = Info(images.image_shape, images.class_names, images.bits)
            if self.kind == "dcgan":
                check_sides(*self.info.shape[:2])
        if len(test) < 4:
            raise InputError(f"{len(test)} test examples are too few to compare with; give 4")
        if config.features is not None:
            names = self.info.class_names if config.condition else None
            self.judge = Judge(config.features, self.info.shape, names)
        self.metric = self._metric()
        self.train = train
        data = self.split_data(train, test, self.info)
        validation, self.test = data.validation, self._numbered(data.test)
        return dataclasses.replace(
            data,
            test=self.test,
            validation=None if validation is None else self._numbered(validation),
        )

    def _metric(self) -> tuple[str, Any]:
        if not self.info.images:
            return "good", "max"
        return ("pixel_frechet" if self.judge is None else "frechet"), "min"

    def _numbered(self, batches: Callable[[], Iterator[Batch]]) -> Callable[[], Iterator[Batch]]:
        """Returns the same pass with the number of each row, from which its noise comes."""
        index, count = self.layout().part

        def numbered() -> Iterator[Batch]:
            for turn, batch in enumerate(batches()):
                rows = len(batch["weight"])
                first = (turn * count + index) * rows
                yield {**batch, "number": np.arange(first, first + rows, dtype=np.int32)}

        return numbered

    # The networks.

    @property
    def kind(self) -> str:
        """The kind of both networks."""
        return self.config.model or ("dcgan" if self.info.images else "dense")

    @property
    def norm(self) -> str:
        """The normalisation of the discriminator.

        Raises:
            InputError: for batch normalisation under a penalty of each example's gradient.
        """
        config = self.config
        penalised = config.r1 > 0 or (config.loss == "wasserstein" and config.gradient_penalty > 0)
        if config.norm == "batch" and penalised:
            raise InputError(
                "--norm=batch lets the logit of an example depend on the others, and a penalty of "
                "gradients is of each example alone; choose --norm=none or --norm=spectral"
            )
        default = "batch" if self.kind == "dcgan" and not penalised else "none"
        return config.norm or default

    @functools.cached_property
    def model(self) -> Adversaries:
        """Both players."""
        config, shape, norm = self.config, self.info.shape, self.norm
        bodies: tuple[nn.Module, nn.Module]
        if self.kind == "dcgan":
            height, width, channels = shape
            bodies = (
                DCGANGenerator((height, width, channels), config.width),
                DCGANDiscriminator(config.width, norm),
            )
        else:
            hidden = (config.hidden,) * config.layers
            bodies = (
                DenseGenerator(shape, hidden, bounded=self.info.images),
                DenseDiscriminator(hidden, norm),
            )
        classes = len(self.info.class_names) if config.condition else 0
        return Adversaries(
            Generator(bodies[0], classes),
            Discriminator(bodies[1], norm, config.condition, classes),
        )

    def init(self, key: jax.Array) -> Variables:
        noise, labels = jnp.zeros((2, self.config.noise)), jnp.zeros(2, jnp.int32)
        variables: Variables = self.model.init(key, noise, labels)
        return variables

    def real(self, batch: Batch, kind: Any = jnp.float32) -> jax.Array:
        """Returns the examples of a batch as networks take them, images in -1..1."""
        if not self.info.images:
            points: jax.Array = jnp.asarray(batch["point"]).astype(kind)
            return points
        return (batch["image"].astype(jnp.float32) / 127.5 - 1).astype(kind)

    def as_pixels(self, drawn: jax.Array) -> jax.Array:
        """Returns drawn images as whole numbers of 0..255, float32."""
        return jnp.round((drawn.astype(jnp.float32) + 1) * 127.5).clip(0, 255)

    def generate(
        self, variables: Variables, key: jax.Array, numbers: jax.Array, labels: jax.Array
    ) -> jax.Array:
        """Draws examples by the running statistics.

        Args:
            variables: of both players.
            key: of the noise.
            numbers: int (B,), which with the key say the noise of each example.
            labels: int (B,).
        """
        noise = self.noise(key, numbers)
        kind = jnp.result_type(*jax.tree.leaves(variables["params"]))
        drawn: jax.Array = self.model.apply(
            variables, noise.astype(kind), labels, method="generate"
        )
        return drawn

    def noise(self, key: jax.Array, numbers: jax.Array) -> jax.Array:
        """Returns the noise (B, Z) of examples of these numbers (B,)."""
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
        return jax.vmap(lambda key: jax.random.normal(key, (self.config.noise,)))(keys)

    # The players.

    def _optimizers(self) -> dict[str, optax.GradientTransformation]:
        """Returns the optimizer of each player, of which the generator's keeps the average."""
        config = self.config
        every = config.discriminator_steps
        configs = {
            "discriminator": dataclasses.replace(config, ema=None),
            # Its schedule counts its own moves.
            "generator": dataclasses.replace(
                config,
                steps=max(1, (config.steps or 1) // every),
                warmup_steps=config.warmup_steps // every,
                boundary=tuple(step // every for step in config.boundary),
            ),
        }
        return {
            name: make_optimizer(own, ((f"^{name}/", False), ("", True)))
            for name, own in configs.items()
        }

    def optimizer(self) -> optax.GradientTransformation:
        return players_optimizer(self._optimizers())

    def step(self) -> Step:
        config, optimizers = self.config, self._optimizers()
        return players_step(
            {
                "discriminator": Player(self.discriminator_loss, optimizers["discriminator"]),
                "generator": Player(
                    self.generator_loss, optimizers["generator"], config.discriminator_steps
                ),
            },
            accumulate=config.accumulate,
        )

    def _drawn(
        self, params: Params, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        """Draws as many examples as the batch has, of its labels, by the batch's statistics."""
        kind = jnp.result_type(*jax.tree.leaves(params))
        noise = self.noise(key, parallel.positions(len(batch["weight"]))).astype(kind)
        drawn, state = self.model.apply(
            {"params": params, **model_state},
            noise,
            batch["label"],
            True,
            mutable=[*model_state],
            method="generate",
        )
        return drawn, dict(state)

    def _logits(
        self, params: Params, model_state: PyTree, examples: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        logits, state = self.model.apply(
            {"params": params, **model_state},
            examples,
            labels,
            True,
            mutable=[*model_state],
            method="discriminate",
        )
        return logits.astype(at_least_float32(logits.dtype)), dict(state)

    def discriminator_loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        """The discriminator's loss of a batch and of as many drawn examples, with its penalties."""
        config, labels, weight = self.config, batch["label"], batch["weight"]
        noise_key, share_key = jax.random.split(rng)
        # What the generator learns of a batch it learns with its own move.
        drawn, _ = self._drawn(params, model_state, batch, noise_key)
        real = self.real(batch, drawn.dtype)
        require_same_sizes(drawn, real)
        of_real, state = self._logits(params, model_state, real, labels)
        of_drawn, state = self._logits(params, state, drawn, labels)
        losses = ADVERSARIAL[config.loss].discriminator(of_real, of_drawn)
        metrics = {"told_apart": Mean.of(_told_apart(of_real, of_drawn), weight)}

        def score(examples: jax.Array) -> jax.Array:
            return self._logits(params, state, examples, labels)[0]

        if config.loss == "wasserstein" and config.gradient_penalty > 0:
            numbers = parallel.positions(len(weight))
            keys = jax.vmap(jax.random.fold_in, (None, 0))(share_key, numbers)
            share = jax.vmap(jax.random.uniform)(keys)
            penalties = gradient_penalty(score, real, drawn, share)
            metrics["gradient_penalty"] = Mean.of(penalties, weight)
            losses = losses + config.gradient_penalty * penalties
        if config.r1 > 0:
            penalties = r1_penalty(score, real)
            metrics["r1"] = Mean.of(penalties, weight)
            losses = losses + config.r1 * penalties
        return Mean.of(losses, weight), Aux(state, metrics)

    def generator_loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        """Returns the generator's loss of as many drawn examples as the batch has."""
        drawn, state = self._drawn(params, model_state, batch, rng)
        logits, _ = self._logits(params, model_state, drawn, batch["label"])
        losses = ADVERSARIAL[self.config.loss].generator(logits)
        return Mean.of(losses, batch["weight"]), Aux(state, {})

    def watch(self, metrics: Mapping[str, float]) -> str | None:
        won = ADVERSARIAL[self.config.loss].won
        if won is None or not metrics.get("discriminator_loss", 1.0) < won + _WON:
            return None
        return (
            f"the discriminator has won: its loss is {metrics['discriminator_loss']:.2g}, so that "
            "the generator learns next to nothing; lower its learning rate by "
            "--rate_factor=^discriminator/:0.25, or keep its gradient small by --r1=1 or "
            "--norm=spectral"
        )

    # Evaluation.

    def metrics(self, state: TrainState, batch: Batch) -> Measures:
        variables = {"params": state.params, **state.model_state}
        labels, weight = batch["label"], batch["weight"]
        key = jax.random.key(self.config.seed)
        drawn = self.generate(variables, key, batch["number"], labels)
        real = self.real(batch, drawn.dtype)
        judged = functools.partial(self.model.apply, variables, method="discriminate")
        logits = [judged(x, labels).astype(jnp.float32) for x in (real, drawn)]
        losses = ADVERSARIAL[self.config.loss]
        found: dict[str, Mean | Rows] = {
            "discriminator_loss": Mean.of(losses.discriminator(*logits), weight),
            "generator_loss": Mean.of(losses.generator(logits[1]), weight),
            "told_apart": Mean.of(_told_apart(*logits), weight),
        }
        features: tuple[jax.Array, jax.Array]
        if not self.info.images:
            features = real.astype(jnp.float32), drawn.astype(jnp.float32)
        elif self.judge is None:
            features = pixels(batch["image"]), pixels(self.as_pixels(drawn))
        else:
            (of_real, _), (of_drawn, classes) = (
                self.judge(images) for images in (batch["image"], self.as_pixels(drawn))
            )
            features = of_real, of_drawn
            if self.config.condition:
                found["called_by_label"] = Mean.of(classes == labels, weight)
        return found | {"features": Rows(features, weight)}

    def summarise(self, measures: dict[str, Any], split: str) -> dict[str, float]:
        real, drawn = measures.pop("features")
        if not np.isfinite(drawn).all():
            raise InputError(
                "the generator draws numbers that are not finite; lower the learning rate"
            )
        precision, recall = precision_recall(real, drawn)
        found = {**measures, "precision": precision, "recall": recall}
        if not self.info.images:
            return {**found, **mode_scores(drawn, self.mixture.centres, self.mixture.deviation)
                    ._asdict()}  # fmt: skip
        return {**found, self.metric[0]: frechet_distance(real, drawn)}

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        return launch.Check(overfit_share=0.95)

    # What a run draws.

    @functools.cached_property
    def draw(self) -> Callable[[Variables, int, int], np.ndarray]:
        """Draws (variables, seed, count): pixels uint8 or points float32; labels go around."""
        generate = jax.jit(self.generate)
        size = 256

        def draw(variables: Variables, seed: int, count: int) -> np.ndarray:
            found = []
            for start in range(0, count, size):
                numbers = np.arange(start, start + size, dtype=np.int32)
                drawn = generate(variables, jax.random.key(seed), numbers, self.labels_of(numbers))
                found.append(np.asarray(drawn, np.float32))
            together = np.concatenate(found)[:count]
            if not self.info.images:
                return together
            return np.asarray(self.as_pixels(jnp.asarray(together)), np.uint8)

        return draw

    def labels_of(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the labels of drawn examples by their numbers, all classes in turn."""
        return numbers % np.int32(len(self.info.class_names))

    def observe(self, variables: Variables, step: int) -> str | None:
        columns = len(self.info.class_names) if self.config.condition else 8
        columns = min(max(columns, 1), 16)
        count = max(_STRIP // columns, 1) * columns if self.info.images else 1024
        drawn = self.draw(self.computing(variables), self.config.seed, count)
        draw_samples(self.workdir, step, drawn, columns, self._centres())
        return None

    def _centres(self) -> np.ndarray | None:
        return None if self.info.images else self.mixture.centres

    def finish(self, outcome: launch.Outcome) -> launch.Outcome:
        if outcome.result is None or not outcome.result.steps:
            return outcome
        return outcome.extended({}, start=self._start())

    def _start(self) -> dict[str, float]:
        """Returns the metrics of the first variables."""
        variables = self.first_variables()
        tx = players_optimizer({})
        state = TrainState.create(variables, tx, jax.random.key(self.config.seed))
        judged = jax.jit(lambda state, batch: (self.metrics(state, batch), None))
        return self.summarise(evaluate(judged, state, self.test()), "test")

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        return report.sections(self, self.computing(outcome.variables))

    @classmethod
    def use(cls, config: Config, given: Collection[str]) -> bool:
        if "generate" not in given or config.generate is None:
            return False
        trained = trained_by(cls, config, given)
        task: Any = trained.task
        drawn = task.draw(task.computing(trained.variables), config.generate_seed, config.generate)
        labels = None
        if task.config.condition:
            labels = task.labels_of(np.arange(len(drawn), dtype=np.int32))
        write_samples(pathlib.Path(config.generate_to).expanduser(), drawn, labels)
        return True


def _told_apart(of_real: jax.Array, of_drawn: jax.Array) -> jax.Array:
    """Tells whether the real one of each pair has the larger logit, (B,); half where equal."""
    return jnp.heaviside(of_real - of_drawn, jnp.float32(0.5))


if __name__ == "__main__":
    launch.main(GAN)
