"""Autoencoders: nets that draw images again from a code of few numbers, or from a noisy one.

By default a dense net on scikit-learn's handwritten digits, which need no network; `--data_path`
takes a folder of images, a table, or a file of arrays such as Keras's mnist.npz.

- `--model=linear` learns the space of the principal components; `dense` and `convolutional` have
  hidden layers, and `--tied` decodes by the encoder's own kernels.
- `--sparsity`, `--contraction` and `--corruption` are what keeps a wide code from copying; with
  `--layer_steps` the layers are first trained one by one (stacked autoencoders).
- `--model=variational` and `variational_convolutional` learn a distribution p(x | z) p(z) by a
  bound of its log-likelihood, in nats by image: sums over pixels, means over images.

At the end the model is measured by `--evaluate`. A classifier starts from the encoder by
`image_classification --init_from=WORKDIR --moments=unit`.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy

from dlcore import launch
from dlcore.data import evenly_spaced, read_images
from dlcore.data.bits import grey_share
from dlcore.errors import InputError
from dlcore.launch.fields import LARGEST, LARGEST_NUMBER, choice, integer, names, number, switch
from dlcore.losses import activation_divergence, evidence_bound, free_bits, importance_bound
from dlcore.models.autoencoder import LIKELIHOODS, make_autoencoder, make_variational
from dlcore.nn.corruption import CORRUPTIONS, corrupt
from dlcore.report import Section
from dlcore.train.phases import Phase
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

from . import evaluators, layerwise, report

PLAIN = ("linear", "dense", "convolutional")
VARIATIONAL = ("variational", "variational_convolutional")
_HIDDEN = {"dense": 1, "convolutional": 2, "variational": 1, "variational_convolutional": 2}
_COLLAPSED = 0.1  # nats of KL by image, below which a code says nothing
_EVALUATION_SEED = 1  # of the noise that evaluations draw, always the same


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    launch.BitsConfig,
    launch.Config,
    steps=2000,
    learning_rate=2e-3,
    schedule="cosine",
    eval_every=500,
):
    """The configuration of an autoencoder."""

    # A micro-batch would lack the mean activations, and the KL, of the others.
    group_conditions = {"accumulate": {"sparsity": (None, "l1"), "free_bits": (0.0,)}}

    model: str = choice("dense", (*PLAIN, *VARIATIONAL), "kind of the net")
    image_size: int | None = integer(
        None,
        1,
        1 << 15,
        "side, in pixels, of the squares that images are fitted into; default the data's own",
    )
    code: int = integer(16, 1, 1 << 16, "values of the code, or latent units")
    layers: int | None = integer(
        None,
        0,
        16,
        "hidden layers on each side of the code; default 1, and 2 of convolutional nets",
        when={"model": tuple(_HIDDEN)},
    )
    hidden: int = integer(
        128,
        1,
        1 << 16,
        "units of a hidden layer, or filters of that beside the code; each before has half as many",
        when={"model": tuple(_HIDDEN)},
    )
    tied: bool = switch(
        False, "decode by the encoder's kernels, transposed", when={"model": ("linear", "dense")}
    )
    sparsity: str | None = choice(
        None,
        ("kl", "l1"),
        "penalty of active units: kl of sigmoid units from a mean activation, l1 of rectifiers",
        when={"model": PLAIN},
    )
    sparsity_weight: float = number(
        0.01,
        0,
        LARGEST_NUMBER,
        "factor of --sparsity, beside the mean squared error of a pixel",
        when={"sparsity": ("kl", "l1")},
    )
    sparsity_target: float = number(
        0.05, 1e-6, 1, "mean activation of a unit", below=True, when={"sparsity": ("kl",)}
    )
    contraction: float = number(
        0.0,
        0,
        LARGEST_NUMBER,
        "factor of the squared Frobenius norm of the code's Jacobian, of sigmoid units",
        when={"model": PLAIN, "sparsity": (None, "kl")},
    )
    corruption: str | None = choice(
        None,
        CORRUPTIONS,
        "noise that the net learns to remove",
        when={"model": PLAIN},
    )
    noise: float = number(
        0.3,
        0,
        LARGEST_NUMBER,
        "share of the pixels that --corruption changes, or deviation of Gaussian noise",
        when={"corruption": tuple(CORRUPTIONS)},
    )
    layer_steps: int = integer(
        0,
        0,
        LARGEST,
        "steps that train each layer by itself before all are trained together",
        when={"model": ("dense",)},
    )
    likelihood: str = choice(
        "bernoulli",
        LIKELIHOODS,
        "p(x | z): bits, or normal with one learned variance",
        when={"model": VARIATIONAL},
    )
    beta: float = number(
        1.0, 0, LARGEST_NUMBER, "factor of the KL in training", when={"model": VARIATIONAL}
    )
    beta_warmup: int = integer(
        0, 0, LARGEST, "steps over which --beta grows from 0", when={"model": VARIATIONAL}
    )
    importance_samples: int = integer(
        1, 1, LARGEST, "samples of the importance-weighted bound", when={"model": VARIATIONAL}
    )
    free_bits: float = number(
        0.0,
        0,
        LARGEST_NUMBER,
        "nats of each latent unit's KL that cost nothing",
        when={"model": VARIATIONAL, "importance_samples": (1,)},
    )
    evaluate: tuple[str, ...] = names(
        f"what is measured at the end, of {', '.join(evaluators.EVALUATORS)}; default all that the "
        "model has except parzen",
        free=True,
    )
    likelihood_samples: int = integer(
        500, 1, LARGEST, "samples by image of the evaluated log-likelihood", free=True,
        when={"model": VARIATIONAL},
    )  # fmt: skip

    @property
    def variational(self) -> bool:
        """Tells whether the code is a distribution."""
        return self.model in VARIATIONAL

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths, or filters, of the hidden layers from the image on."""
        if self.model not in _HIDDEN:
            return ()
        layers = _HIDDEN[self.model] if self.layers is None else self.layers
        if self.body == "dense":
            return (self.hidden,) * layers
        return tuple(-(-self.hidden // 2**below) for below in reversed(range(layers)))

    @property
    def body(self) -> str:
        """The kind of the layers, of `models.autoencoder.BODIES`."""
        return "convolutional" if "convolutional" in self.model else "dense"

    @property
    def code_activation(self) -> str:
        """The activation of the code that the penalties are of."""
        if self.sparsity == "kl" or self.contraction:
            return "sigmoid"
        return "relu" if self.sparsity == "l1" else "linear"

    def shrunk(self) -> "Config":
        small = super().shrunk()
        values: dict[str, Any] = {}
        if self.variational:
            values["likelihood_samples"] = min(self.likelihood_samples, 2)
        if self.layer_steps:
            values |= {"layer_steps": 1, "steps": len(self.widths) + 2}
        return dataclasses.replace(small, **values)


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that an autoencoder remembers.

    Attributes:
        image_shape: (H, W, C).
        bits: of the values in image files that have more than 8.
    """

    image_shape: tuple[int, int, int]
    bits: int = 16


class Autoencoder(launch.Task[Config, Info]):
    """An autoencoder, plain or variational."""

    reads = "images"
    grey = False  # whether pixels of a Bernoulli likelihood are no bits; known where it is trained

    def data(self) -> launch.Data[Info]:
        config = self.config
        images = self.images(image_size=config.image_size)
        self.train, self.test = images.train, images.test
        info = Info(images.image_shape, images.bits)
        pixels = int(np.prod(images.image_shape))
        launch.say(
            f"{config.model} on {images.name}: {len(images.train):,} images to train on, "
            f"{len(images.test):,} to test, shape {images.image_shape}"
        )
        self._check(pixels)
        self.evaluators = evaluators.chosen(config)
        if config.variational and config.likelihood == "bernoulli":
            self.grey = self._look_for_grey()
        data = self.split_data(images.train, images.test, info)
        if not config.beta_warmup:
            return data

        def warming(start: int) -> Any:
            for step, batch in enumerate(data.train(start), start):
                share = np.float32(min(1.0, step / config.beta_warmup))
                yield {**batch, "beta": np.full_like(batch["weight"], share)}

        return dataclasses.replace(data, train=warming)

    def _check(self, pixels: int) -> None:
        """Warns of a code that can copy, and refuses shares of noise above 1."""
        config = self.config
        if config.corruption in ("masking", "salt_and_pepper") and config.noise > 1:
            raise InputError(
                f"--noise={config.noise:g} of --corruption={config.corruption} is a share of the "
                "pixels; give 0 to 1"
            )
        kept = config.variational or config.sparsity or config.contraction or config.corruption
        if config.code >= pixels and not kept:
            launch.say(
                f"warning: --code={config.code} is as wide as the {pixels} pixels, so that the net "
                "can copy them and learn nothing; give a smaller --code, or --sparsity, "
                "--contraction or --corruption"
            )

    def _look_for_grey(self) -> bool:
        """Returns whether the pixels are no bits, and says what their bound then is.

        Raises:
            InputError: for an importance-weighted bound, which has no meaning then.
        """
        share = 0.0 if self.config.binarise == "dynamic" else grey_share(self.train)
        if not share:
            return False
        if self.config.importance_samples > 1:
            raise InputError(
                f"--importance_samples weigh the bits of an image, and {share:.0%} of the pixels "
                "are grey; give --binarise=static or dynamic, or --likelihood=gaussian"
            )
        launch.say(
            f"{share:.0%} of the pixels are grey: the bound is for the expected log-likelihood "
            "of bits that are drawn with them, so do not compare it with figures of binary images; "
            "--binarise=static gives such figures"
        )
        return True

    @functools.cached_property
    def net(self) -> Any:
        """The network, a `VariationalAutoencoder` or an `Autoencoder` of `models.autoencoder`."""
        config, shape = self.config, self.info.image_shape
        if config.variational:
            return make_variational(
                config.body, shape, config.code, config.widths, config.likelihood
            )
        return make_autoencoder(
            config.body,
            shape,
            config.code,
            config.widths,
            tied=config.tied,
            code_activation=config.code_activation,
        )

    def init(self, key: jax.Array) -> Variables:
        variables: Variables = self.net.init(key, jnp.zeros((1, *self.info.image_shape)))
        return variables

    def scaled(self, params: Params, images: Any) -> jax.Array:
        """Returns images of 0..255 as 0..1, in the type of the parameters."""
        kind = jnp.result_type(*jax.tree.leaves(params))
        return jnp.asarray(images).astype(kind) / 255

    def forward(self, variables: Variables, images: Any) -> tuple[jax.Array, Activations]:
        """Maps images of 0..255 to those drawn again, of 0..1, and the activations by name."""
        drawn: tuple[jax.Array, Activations] = self.net.apply(
            variables, self.scaled(variables["params"], images)
        )
        return drawn

    def noisy(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Returns values with the noise of --corruption, if there is any."""
        config = self.config
        return x if config.corruption is None else corrupt(config.corruption, key, x, config.noise)

    # What is trained.

    def objective(
        self, params: Params, batch: Batch, rng: jax.Array, beta: jax.Array | float
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the loss and what else there is to know of each image, (B,)."""
        x = self.scaled(params, batch["image"])
        if self.config.variational:
            return self._negative_bound(params, x, rng, beta)
        return self._errors(params, x, rng)

    def _negative_bound(
        self, params: Params, x: jax.Array, rng: jax.Array, beta: jax.Array | float
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        samples = self.config.importance_samples
        terms = self.net.apply({"params": params}, x, rng, samples, method="terms")
        measures = {"reconstruction": -terms.log_likelihood.mean(0), "kl": terms.kl.sum(-1)}
        if samples > 1:
            factor = beta if jnp.ndim(beta) == 0 else jnp.asarray(beta)[None]
            return -importance_bound(terms.log_likelihood + factor * terms.log_ratio), measures
        kl = free_bits(terms.kl, self.config.free_bits)
        return -evidence_bound(terms.log_likelihood[0], kl, beta), measures

    def _errors(
        self, params: Params, x: jax.Array, rng: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        config, variables = self.config, {"params": params}
        seen = self.noisy(rng, x)
        drawn, activations = self.net.apply(variables, seen)
        errors, code = squared_errors(drawn, x), activations["code"]
        value, measures = errors, {}
        if config.sparsity == "kl":
            divergence = activation_divergence(code, config.sparsity_target)
            value = value + config.sparsity_weight * divergence
        elif config.sparsity == "l1":
            size = jnp.abs(code).astype(errors.dtype).sum(-1)
            value = value + config.sparsity_weight * size
        if config.contraction:
            measures["contraction"] = self.net.apply(variables, seen, method="contraction")
            value = value + config.contraction * measures["contraction"]
        if config.sparsity or config.contraction:
            measures["reconstruction"] = errors
        if config.corruption:
            measures |= {"noisy": squared_errors(seen, x), "denoised": errors}
        return value, measures

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        warmth = batch.get("beta")
        beta = self.config.beta if warmth is None else self.config.beta * warmth
        losses, measures = self.objective(params, batch, rng, beta)
        weight = batch["weight"]
        means = {name: Mean.of(values, weight) for name, values in measures.items()}
        return Mean.of(losses, weight), Aux(model_state, means)

    def phases(self) -> Sequence[Phase]:
        if not self.config.layer_steps:
            return ()

        def scaled(params: Params, batch: Batch) -> jax.Array:
            return self.scaled(params, batch["image"])

        return layerwise.phases(self.net, scaled, self.noisy, self.loss, self.config)

    # What is measured.

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        key = jax.random.key(_EVALUATION_SEED)
        losses, measures = self.objective(state.params, batch, key, 1.0)
        if self.config.corruption:
            drawn, _ = self.forward({"params": state.params}, batch["image"])
            clean = self.scaled(state.params, batch["image"])
            measures["reconstruction"] = squared_errors(drawn, clean)
        return {
            name: Mean.of(values, batch["weight"])
            for name, values in {"loss": losses, **measures}.items()
        }

    def summarise(self, measures: dict[str, Any], split: str) -> dict[str, float]:
        noisy, denoised = measures.pop("noisy", None), measures.pop("denoised", None)
        if noisy is None or denoised is None:
            return measures
        return {**measures, "gain_db": denoising_gain(noisy, denoised)}

    def watch(self, metrics: Mapping[str, float]) -> str | None:
        if not self.config.variational or not metrics["kl"] < _COLLAPSED:
            return None
        return (
            f"the posterior collapses: the code has {metrics['kl']:.2g} nats of an image, so that "
            "the decoder draws without it. Likely cause: the KL outweighs what the code can say "
            "early on. Remedy: --beta_warmup over some thousand steps, --free_bits=0.1, a lower "
            "--beta, or a smaller decoder"
        )

    def observe(self, variables: Variables, step: int) -> str | None:
        if self.config.variational:
            report.write_samples(self, variables, step)
        return None

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        share = None
        if self.grey:
            # A bound of grey pixels cannot fall below their entropy as bits.
            x = next(data.test())["image"] / 255
            entropy = float(-(xlogy(x, x) + xlogy(1 - x, 1 - x)).mean())
            share = (1 + entropy / np.log(2)) / 2
        return launch.Check(self.forward, "image", overfit_share=share)

    def finish(self, outcome: launch.Outcome) -> launch.Outcome:
        return evaluators.measure(self, outcome)

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        return [*report.sections(self, outcome)]

    # What is asked of it.

    @functools.cached_property
    def drawing(self) -> Any:
        """Maps (variables, images of 0..255) to those drawn again."""
        return jax.jit(lambda variables, images: self.forward(variables, images)[0])

    @functools.cached_property
    def encoding(self) -> Any:
        """Maps (variables, images of 0..255) to the code, or to means and log variances."""

        def encode(variables: Variables, images: Any) -> Any:
            x = self.scaled(variables["params"], images)
            found = self.net.apply(variables, x, method="encode")[0]
            return jax.tree.map(lambda a: a.astype(jnp.float32), found)

        return jax.jit(encode)

    @functools.cached_property
    def decoding(self) -> Any:
        """Maps (variables, codes) to images of 0..1."""

        def decode(variables: Variables, codes: Any) -> jax.Array:
            kind = jnp.result_type(*jax.tree.leaves(variables["params"]))
            return self.net.apply(variables, jnp.asarray(codes).astype(kind), method="decode")

        return jax.jit(decode)

    def predict(self, variables: Variables, inputs: Sequence[Any]) -> np.ndarray:
        """Returns the images drawn again, uint8 [N, H, W, C]; grey pixels are taken as they are."""
        images = read_images(inputs, self.info.image_shape, self.info.bits)
        return to_pixels(self.drawing(variables, images))

    def some_of_test(self, count: int) -> np.ndarray:
        """Returns images of the test part at even distances, uint8 [n, H, W, C]."""
        split = evenly_spaced(self.test, count)
        images: np.ndarray = split.gather(np.arange(len(split)))["image"]
        return images


def squared_errors(drawn: jax.Array, x: jax.Array) -> jax.Array:
    """Returns the mean squared error of the pixels of each image, (B,), in float32 at least."""
    kind = at_least_float32(drawn.dtype)
    errors = (drawn.astype(kind) - x.astype(kind)) ** 2
    return errors.reshape(len(errors), -1).mean(1)


def denoising_gain(noisy: float, denoised: float) -> float:
    """Returns by how many decibels the peak signal-to-noise ratio rises, of mean squared errors."""
    return float(10 * np.log10(noisy / denoised)) if denoised > 0 else float("inf")


def to_pixels(images: Any) -> np.ndarray:
    """Returns images of 0..1 as uint8; values beyond are cut."""
    return np.rint(255 * np.asarray(images, np.float32).clip(0, 1)).astype(np.uint8)
