"""Classification of images of which few have a label: ladder networks and others.

By default a ladder network on scikit-learn's handwritten digits, 100 of them with a label, which
needs no network. `--model` is the ladder network (Rasmus et al. 2015), its Gamma model, which takes
noise off the top layer alone, pseudo-labels (Lee 2013), virtual adversarial training (Miyato et al.
2018), or supervised training on the labelled images alone, all with the same dense layers. The
labelled ones are as many of each class, drawn by the seed; of the others no label is looked at.

    --data_path=mnist.npz --labels=100
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore import launch, parallel
from dlcore.data import evenly_spaced, labels_of, read_images
from dlcore.data.labelled import Beside, choose_labelled
from dlcore.errors import InputError
from dlcore.launch.answers import class_answers
from dlcore.launch.fields import LARGEST, LARGEST_NUMBER, choice, integer, number, texts
from dlcore.launch.task import split_validation
from dlcore.losses import pseudo_label, virtual_adversarial
from dlcore.metrics import classification
from dlcore.models.ladder import COMBINATORS, LadderNetwork
from dlcore.report import Section, picture_section
from dlcore.report.classes import (
    calibration_section,
    class_section,
    confusion_section,
    worst_mistakes,
)
from dlcore.report.plots import plot_mistakes
from dlcore.types import (
    Activations,
    Aux,
    Batch,
    Mean,
    Metrics,
    Params,
    PyTree,
    TrainState,
    Variables,
    at_least_float32,
)

# What each model denoises.
DENOISES = {"ladder": "all", "gamma": "top", "pseudo_label": "none", "vat": "none",
            "supervised": "none"}  # fmt: skip
_DENOISING = {"model": ("ladder", "gamma")}
# The costs of layer 0, of layer 1 and of each above (section 4.1.2, for MNIST); of the Gamma model
# the top one.
_COSTS = {"ladder": (1000.0, 10.0, 0.1), "gamma": (1.0,)}
_SAMPLE = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    launch.Config,
    steps=1500,
    batch_size=100,
    optimizer="adam",
    learning_rate=2e-3,
    schedule="linear",
    eval_every=500,
):
    """The configuration of a classifier that learns of few labels."""

    model: str = choice("ladder", tuple(DENOISES), "how the images without a label are used")
    labels: int = integer(
        100, 0, LARGEST, "number of images that keep their label, equally many of each class"
    )
    width: int = integer(1000, 1, 1 << 14, "units of the first hidden layer; others have a half "
                         "and quarters of it")  # fmt: skip
    noise: float = number(
        0.3, 0, 100, "standard deviation of the noise on each layer, inputs of 0..1 included"
    )
    combinator: str = choice(
        "gaussian", COMBINATORS, "function that removes noise", when=_DENOISING
    )
    costs: tuple[str, ...] = texts(
        "weight of the denoising cost of the next layer, from the input on, the last one for all "
        "above; default 1000, 10, 0.1, of the Gamma model 1 for its one layer",
        when=_DENOISING,
    )
    unlabelled_weight: float = number(
        1.0,
        0,
        LARGEST_NUMBER,
        "weight of the loss of images without a label",
        when={"model": ("pseudo_label", "vat")},
    )
    ramp: float = number(
        0.5,
        0,
        1,
        "share of the steps in which that weight rises from 0",
        when={"model": ("pseudo_label",)},
    )
    radius: float = number(
        2.0,
        0,
        LARGEST_NUMBER,
        "norm of the worst change of an image of 0..1",
        when={"model": ("vat",)},
    )
    top: int = integer(5, 1, LARGEST, "classes that --predict lists", free=True)

    def cost_weights(self, layers: int) -> tuple[float, ...]:
        """Returns the weight of each layer's denoising cost, given how many layers there are.

        Raises:
            InputError: for what is no number of 0 or more, and more numbers than layers.
        """
        given = self.costs or tuple(map(str, _COSTS[self.model]))
        try:
            found = tuple(map(float, given))
        except ValueError:
            found = (-1.0,)
        if not all(0 <= weight < np.inf for weight in found):
            raise InputError(f"--costs={','.join(given)} are not numbers of 0 or more; give such")
        if len(found) > layers:
            raise InputError(
                f"{len(found)} --costs are more than the {layers} layers that are denoised"
            )
        return found + found[-1:] * (layers - len(found))


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that a classifier remembers.

    Attributes:
        class_names: the name of each label.
        shape: (H, W, C) of the images.
        bits: of the values in image files that have more than 8.
    """

    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    bits: int = 16


class SemiSupervised(launch.Task[Config, Info]):
    """A dense classifier, trained on few labels and on many images."""

    metric = ("accuracy", "max")
    reads = "images"

    def data(self) -> launch.Data[Info]:
        config = self.config
        images = self.images()
        self.info = Info(images.class_names, images.image_shape, images.bits)
        if config.model in _COSTS:
            config.cost_weights(len(self.denoised))
        train, held_out = split_validation(images.train, config.validation, config.seed)
        plain = self.split_data(train, images.test, self.info, validation=held_out)
        chosen = choose_labelled(labels_of(train), config.labels, images.class_names, config.seed)
        launch.say(
            f"{config.model} on {images.name}: {len(chosen):,} of {len(train):,} images have a "
            f"label, {len(images.test):,} to test"
        )
        self.test = images.test
        self.stream = Beside(
            train.subset(chosen), train, config.batch_size, seed=config.seed, **self.part()
        )
        return dataclasses.replace(plain, train=self.batches)

    def batches(self, start: int) -> Iterator[Batch]:
        """Yields the batches with the weight of what has no label, which is a matter of the step.

        It rises from 0 in a line, as Lee 2013, eq. 16, has it.
        """
        config = self.config
        rise = config.ramp * (config.steps or 1) if config.model == "pseudo_label" else 0
        for step, batch in enumerate(self.stream.batches(start), start):
            share = 1.0 if step >= rise else step / rise
            factor = np.float32(config.unlabelled_weight * share)
            yield {**batch, "factor": np.full(len(batch["weight"]), factor)}

    # The network.

    @functools.cached_property
    def model(self) -> LadderNetwork:
        """The network."""
        config = self.config
        hidden = tuple(max(1, config.width // part) for part in (1, 2, 4, 4, 4))
        return LadderNetwork(
            int(np.prod(self.info.shape)),
            len(self.info.class_names),
            hidden,
            DENOISES[config.model],
            config.combinator,
        )

    @property
    def denoised(self) -> tuple[int, ...]:
        """The layers whose noise is taken off."""
        layers = tuple(range(len(self.model.widths)))
        return {"all": layers, "top": layers[-1:], "none": ()}[DENOISES[self.config.model]]

    def init(self, key: jax.Array) -> Variables:
        variables: Variables = self.model.init(key, jnp.zeros((2, self.model.inputs)))
        return variables

    def flat(self, images: jax.Array, kind: Any = jnp.float32) -> jax.Array:
        """Returns images of 0..255 as vectors of 0..1."""
        x = jnp.asarray(images).astype(jnp.float32).reshape(len(images), -1)
        return (x / 255).astype(kind)

    def _noise(self, key: jax.Array, count: int, kind: Any) -> list[jax.Array] | None:
        """Returns the noise of each layer, one row for each example of the batch."""
        if self.config.noise == 0:
            return None
        widths = self.model.widths
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, parallel.positions(count))
        drawn = jax.vmap(lambda key: jax.random.normal(key, (sum(widths),)))(keys)
        parts = jnp.split(self.config.noise * drawn.astype(kind), np.cumsum(widths)[:-1], axis=1)
        return [*parts]

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        config, weight, label = self.config, batch["weight"], batch["label"]
        kind = jnp.result_type(*jax.tree.leaves(params))
        few, many = (self.flat(batch[name], kind) for name in ("labelled", "image"))
        few_key, many_key, step_key = jax.random.split(rng, 3)
        variables = {"params": params, **model_state}

        def encoded(x: jax.Array, noise: Any = None) -> tuple[Any, Any]:
            return self.model.apply(
                variables, x, noise, train=True, mutable=[*model_state], method="encode"
            )

        labelled, _ = encoded(few, self._noise(few_key, len(few), kind))
        # The running moments are those of clean images, of as many as may be seen.
        clean, state = encoded(few if config.model == "supervised" else many)
        logits = _widened(labelled.logits)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        metrics = {"supervised_loss": Mean.of(losses, weight)}
        if config.model in _COSTS:
            noisy, _ = encoded(many, self._noise(many_key, len(many), kind))
            costs = self.model.apply(variables, clean, noisy, train=True, method="costs")
            weights = config.cost_weights(len(self.denoised))
            for layer, factor in zip(self.denoised, weights, strict=True):
                losses = losses + factor * costs[layer]
                metrics[f"denoising_{layer}"] = Mean.of(costs[layer], weight)
        elif config.model == "pseudo_label":
            noisy, _ = encoded(many, self._noise(many_key, len(many), kind))
            own = pseudo_label(_widened(noisy.logits))
            losses = losses + batch["factor"] * own
            metrics["pseudo_label_loss"] = Mean.of(own, weight)
        elif config.model == "vat":
            keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, parallel.positions(len(many)))
            start = jax.vmap(lambda key: jax.random.normal(key, many.shape[1:]))(keys)
            own = virtual_adversarial(
                lambda x: _widened(encoded(x)[0].logits),
                many,
                start.astype(kind),
                radius=config.radius,
            )
            losses = losses + batch["factor"] * own
            metrics["divergence"] = Mean.of(own, weight)
        return Mean.of(losses, weight), Aux(dict(state), metrics)

    # Evaluation and use.

    def forward(self, variables: Variables, images: jax.Array) -> tuple[jax.Array, Activations]:
        """Maps images of 0..255 to logits and the normalised layers by name."""
        kind = jnp.result_type(*jax.tree.leaves(variables["params"]))
        found = self.model.apply(variables, self.flat(images, kind), method="encode")
        layers = {f"layer_{number}": layer for number, layer in enumerate(found.layers)}
        return found.logits, layers

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        logits, _ = self.forward({"params": state.params, **state.model_state}, batch["image"])
        return classification(logits, batch["label"], batch["weight"])

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        return launch.Check()

    @functools.cached_property
    def probabilities(self) -> Callable[[Variables, Any], jax.Array]:
        """Maps (variables, images [N, H, W, C]) to the probabilities of the classes, float32."""
        return jax.jit(
            lambda variables, images: jax.nn.softmax(
                self.forward(variables, images)[0].astype(jnp.float32)
            )
        )

    def predict(self, variables: Variables, inputs: Sequence[Any]) -> np.ndarray:
        """Returns the probabilities of the classes, float32 [N, K]."""
        images = read_images(inputs, self.info.shape, self.info.bits)
        return np.asarray(self.probabilities(variables, images))

    def answers(self, inputs: Sequence[Any], outputs: np.ndarray) -> list[dict[str, Any]]:
        return class_answers(outputs, self.info.class_names, self.config.top)

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        test, names = evenly_spaced(self.test, _SAMPLE), self.info.class_names
        shown = test.gather(np.arange(len(test)))
        images, labels = shown["image"], shown["label"]
        found = np.asarray(self.probabilities(self.computing(outcome.variables), images))
        worst = worst_mistakes(labels, found)[:20]
        captions = [f"{names[labels[n]]}\nas {names[found[n].argmax()]}" for n in worst]
        return [
            confusion_section(labels, found.argmax(1), names),
            class_section(labels, found.argmax(1), names),
            calibration_section(labels, found),
            picture_section(
                "Worst mistakes",
                "mistakes",
                lambda path: plot_mistakes(images[worst], captions, path),
            ),
        ]


def _widened(logits: jax.Array) -> jax.Array:
    return logits.astype(at_least_float32(logits.dtype))


if __name__ == "__main__":
    launch.main(SemiSupervised)
