"""Boltzmann machines: restricted ones and deep belief networks, trained on images without labels.

By default a restricted Boltzmann machine on scikit-learn's digits, whose grey pixels are drawn to
bits once (`--binarise`). `--visible=gaussian` and `softmax` model grey pixels as they are.
`--model=dbn` trains one layer after the other, each with an equal share of the steps, and
`--up_down_steps` all of them together at the end. A run ends with the log-likelihood of the test
images, exact where one side of the machine has at most 20 units, else by annealing in both
directions. `--predict=FOLDER --workdir=DIR` gives the means of the uppermost units.

The layers of a network start those of a classifier of sigmoid units, whose pixels are 0 to 1:

    dlcore image_classification --model=mlp --option=features=[128,128]
        --option=activation=sigmoid --moments=unit --init_from=DIR
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch, optim
from dlcore.data import evenly_spaced, read_images
from dlcore.data.bits import BINARISATIONS, grey_share
from dlcore.errors import InputError
from dlcore.launch.fields import LARGEST, LARGEST_NUMBER, choice, integer, integers, number, switch
from dlcore.launch.task import make_optimizer
from dlcore.models.boltzmann import (
    SPARSITIES,
    Binary,
    Contrast,
    DeepBelief,
    Gaussian,
    Softmax,
    Stack,
    Units,
    layer_name,
)
from dlcore.models.boltzmann.belief import UNTIED, generated, means_up, reconstruction
from dlcore.models.boltzmann.contrastive import first_chains, first_means
from dlcore.models.boltzmann.rbm import gibbs, pseudo_log_likelihood
from dlcore.report import Section
from dlcore.train.phases import Phase
from dlcore.types import (
    Aux,
    Batch,
    Carry,
    Mean,
    Metrics,
    Params,
    PyTree,
    Step,
    TrainState,
    Variables,
)

from . import likelihood, report

_BELIEF = {"model": ("dbn",)}
_FROM_DATA = {"chains": (0,)}
_PERSISTENT = {"chains": lambda count: count > 0}
_SPARSE = {"sparsity": SPARSITIES}
_HIDDEN = {"rbm": (128,), "dbn": (128, 128)}
# Images that a split is measured by at the end.
_SAMPLE = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    launch.Config,
    launch.BitsConfig,
    steps=3000,
    optimizer="momentum",
    learning_rate=0.05,
    schedule="linear",
    eval_every=500,
):
    """The configuration of Boltzmann machines."""

    # Each phase of a network has an optimizer of its own.
    group_conditions = dict.fromkeys(
        ("ema", "penalty", "plateau_patience", "patience"), {"model": ("rbm",)}
    )

    model: str = choice("rbm", tuple(_HIDDEN), "restricted machine, or deep belief network")
    hidden: tuple[int, ...] = integers(
        1, "units of a hidden layer, from below; default 128, and 128 twice of a network"
    )
    visible: str = choice("binary", ("binary", "gaussian", "softmax"), "kind of the visible units")
    binarise: str | None = choice(  # type: ignore[assignment,misc]
        None,
        BINARISATIONS,
        "draw bits with the grey pixels as probabilities: static draws once, dynamic anew "
        "at each training step; default static",
        when={"visible": ("binary",)},
    )
    levels: int = integer(
        4, 2, 256, "levels of grey that a pixel can have", when={"visible": ("softmax",)}
    )
    learn_variance: bool = switch(
        False, "learn the variance of each pixel; else it is 1", when={"visible": ("gaussian",)}
    )
    k: int = integer(1, 1, LARGEST, "steps of Gibbs sampling before each update")
    mean_field: bool = switch(
        False, "set visible units to their means instead of drawing them", when=_FROM_DATA
    )
    chains: int = integer(
        0,
        0,
        1 << 16,
        "persistent chains for each image of a batch; 0 starts a new chain at each image",
    )
    temperatures: int = integer(
        1, 1, 1024, "temperatures of each chain, which exchange states", when=_PERSISTENT
    )
    centre: bool = switch(False, "subtract the means of the units in the gradient (centring)")
    sparsity: str | None = choice(None, SPARSITIES, "cost of hidden units that are on too often")
    sparsity_target: float = number(
        0.1, 0, 1, "share of the images for which a hidden unit should be on", when=_SPARSE
    )
    sparsity_cost: float = number(0.1, 0, LARGEST_NUMBER, "factor of --sparsity", when=_SPARSE)
    up_down_steps: int = integer(
        0, 0, LARGEST, "how many of the last --steps train all layers together", when=_BELIEF
    )
    log_likelihood: str = choice(
        "auto",
        likelihood.METHODS,
        f"how the test images are judged at the end; auto is exact up to {likelihood.MOST_EXACT} "
        "units on one side, else ais",
        free=True,
    )
    ais_chains: int = integer(100, 2, LARGEST, "chains of --log_likelihood=ais", free=True)
    ais_steps: int = integer(
        1000, 1, LARGEST, "distributions that these chains pass through", free=True
    )

    def for_check(self) -> "Config":
        return dataclasses.replace(super().for_check(), up_down_steps=0)

    def shrunk(self) -> "Config":
        values: dict[str, Any] = {"hidden": (8,) * len(self.hidden or _HIDDEN[self.model])}
        if self.up_down_steps:
            values["up_down_steps"] = 1
        phases = len(values["hidden"]) + (self.up_down_steps > 0)
        return dataclasses.replace(
            super().shrunk(), steps=max(2, phases), ais_steps=10, ais_chains=4, **values
        )


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that a machine remembers.

    Attributes:
        image_shape: (H, W, C).
        pixel_means: of each pixel, in units of 0..255, [H, W, C].
        spread: the root of the mean square of what pixels are above or below their means.
        bits: of the values in image files that have more than 8.
    """

    image_shape: tuple[int, int, int]
    pixel_means: np.ndarray = dataclasses.field(compare=False)
    spread: float = dataclasses.field(compare=False)
    bits: int = 16


class Boltzmann(launch.Task[Config, Info]):
    """A restricted Boltzmann machine, or a deep belief network."""

    reads = "images"

    def __init__(self, config: Config):
        if config.visible == "binary" and config.binarise is None:
            config = dataclasses.replace(config, binarise="static")
        super().__init__(config)

    # The data.

    def data(self) -> launch.Data[Info]:
        config = self.config
        self.check_layers()
        data = self.images()
        grey = grey_share(data.train) if config.visible == "binary" else 0
        if config.binarise == "none" and grey > 0:
            raise InputError(
                f"{grey:.1%} of the pixels of {data.name} are grey, and binary units are 0 or 1; "
                "give --binarise=static or dynamic to draw bits, or --visible=gaussian or softmax"
            )
        train = evenly_spaced(data.train, _SAMPLE)
        images = train.gather(np.arange(len(train)))["image"].astype(np.float64)
        mean = images.mean(0)
        info = Info(
            data.image_shape, mean, float(np.sqrt(((images - mean) ** 2).mean())), data.bits
        )
        launch.say(
            f"{config.model} of {'-'.join(map(str, self.hidden))} hidden units on {data.name}: "
            f"{len(data.train):,} images to train on, {len(data.test):,} to test, shape "
            f"{data.image_shape}"
        )
        self.info = info
        self.judged = {"train": train, "test": evenly_spaced(data.test, _SAMPLE)}
        found = self.split_data(data.train, data.test, info)
        if config.log_likelihood == "exact":
            likelihood.require_exact(self.belief)
        return found

    @property
    def hidden(self) -> tuple[int, ...]:
        """The units of each hidden layer, from below."""
        return self.config.hidden or _HIDDEN[self.config.model]

    def check_layers(self) -> None:
        """Checks that the layers and the steps go together.

        Raises:
            InputError: for a machine of several layers, and for too few steps.
        """
        config, count = self.config, len(self.hidden)
        if (config.model == "rbm") != (count == 1):
            raise InputError(
                f"--model={config.model} with {count} --hidden: rbm has one hidden layer, dbn two "
                "or more; give --hidden once for each"
            )
        phases = count + (config.up_down_steps > 0)
        if config.model == "dbn" and min(self.lengths) < 1:
            raise InputError(
                f"--steps={config.steps} with --up_down_steps={config.up_down_steps} leave no step "
                f"for some of the {phases} phases of the network; give more --steps"
            )

    @functools.cached_property
    def units(self) -> Units:
        """The kind of the visible units."""
        kinds = {"binary": Binary(), "gaussian": Gaussian(), "softmax": Softmax(self.config.levels)}
        return kinds[self.config.visible]

    def visible(self, images: jax.Array) -> jax.Array:
        """Returns the visible units of images of 0..255, [B, V]."""
        x = images.reshape(len(images), -1).astype(jnp.float32)
        if isinstance(self.units, Softmax):
            level = jnp.floor(x * (self.units.levels / 256)).astype(jnp.int32)
            return jax.nn.one_hot(level, self.units.levels).reshape(len(x), -1)
        if isinstance(self.units, Gaussian):
            return (x - jnp.float32(self.info.pixel_means.reshape(1, -1))) / self._scale
        return x / 255

    @property
    def _scale(self) -> float:
        return max(self.info.spread, 1.0)

    def pictures(self, visible: np.ndarray) -> np.ndarray:
        """Returns visible units or their means [..., V] as images, uint8 [..., H, W, C]."""
        x = np.asarray(visible, np.float64)
        if isinstance(self.units, Softmax):
            levels = self.units.levels
            x = x.reshape(*x.shape[:-1], -1, levels) @ np.linspace(0, 255, levels)
        elif isinstance(self.units, Gaussian):
            x = x * self._scale + self.info.pixel_means.reshape(-1)
        else:
            x = 255 * x
        return (
            np.rint(x.clip(0, 255)).astype(np.uint8).reshape(*x.shape[:-1], *self.info.image_shape)
        )

    @functools.cached_property
    def mean(self) -> np.ndarray:
        """The mean of the visible units over training images, [V]."""
        train = self.judged["train"]
        total = jax.jit(lambda images: self.visible(images).mean(0))
        return np.asarray(total(train.gather(np.arange(len(train)))["image"]))

    # The model.

    @functools.cached_property
    def belief(self) -> DeepBelief:
        """The network; an RBM is one of one layer."""
        pixels = int(np.prod(self.info.image_shape))
        count = pixels * (self.units.levels if isinstance(self.units, Softmax) else 1)
        return DeepBelief(self.units, count, self.hidden, self.config.learn_variance)

    @functools.cached_property
    def contrast(self) -> Contrast:
        """How the layers are trained."""
        config = self.config
        return Contrast(
            config.k,
            config.mean_field,
            config.chains,
            config.temperatures,
            config.centre,
            config.sparsity,
            config.sparsity_target,
            config.sparsity_cost if config.sparsity else 0.0,
        )

    def init(self, key: jax.Array) -> Variables:
        params = self.belief.init(key, up_down=self.config.up_down_steps > 0)
        means = {
            layer_name(n): first_means(rbm, self.contrast)
            for n, rbm in enumerate(self.belief.layers)
        }
        return {"params": params, **({"means": means} if any(means.values()) else {})}

    def carry(self) -> Carry:
        if not self.config.chains:
            return None
        keys = jax.random.split(jax.random.key(self.config.seed), len(self.hidden))
        return {
            layer_name(n): first_chains(rbm, self.contrast, self.config.batch_size, key)
            for n, (rbm, key) in enumerate(zip(self.belief.layers, keys, strict=True))
        }

    def adopt(self, state: TrainState) -> TrainState:
        """Returns the state whose lowest machine has the data's means by its biases."""
        lowest = layer_name(0)
        params, means = dict(state.params), state.model_state.get("means")
        params[lowest] = self.belief.layers[0].with_mean(params[lowest], self.mean)
        model_state = dict(state.model_state)
        if means is not None:
            here = {**means[lowest], "visible": jnp.asarray(self.mean)}
            model_state["means"] = {**means, lowest: here}
        placed = jax.tree.map(
            lambda new, old: jax.device_put(new, old.sharding),
            (params, model_state),
            (state.params, state.model_state),
        )
        opt_state = optim.start_average(state.opt_state, placed[0])
        return state.replace(params=placed[0], model_state=placed[1], opt_state=opt_state)

    # The training.

    def layer_loss(
        self, layer: int, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        """Returns the loss of a layer on what those below make of the images."""
        name = layer_name(layer)
        means, chains = model_state.get("means", {}), batch.get("carry")
        v = self.visible(batch["image"])
        found = self.belief.greedy_loss(
            layer,
            self.contrast,
            params,
            means.get(name, {}),
            v,
            batch["weight"],
            rng,
            None if chains is None else chains[name],
        )
        state = {**model_state, "means": {**means, name: found.means}} if means else model_state
        carry = None if chains is None else {**chains, name: found.chains}
        return found.loss, Aux(state, found.metrics, carry)

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        """Returns the loss of an RBM, or of all layers of a network at once, for --check."""
        total, aux = self.layer_loss(0, params, model_state, batch, rng)
        for n in range(1, len(self.hidden)):
            key = jax.random.fold_in(rng, n)
            here = batch if aux.carry is None else {**batch, "carry": aux.carry}
            mean, aux = self.layer_loss(n, params, aux.model_state, here, key)
            total = Mean(total.total + mean.total, total.weight)
        return total, aux

    def up_down_loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        """Returns the loss of the last phase, in which all layers learn together."""
        contrast = Contrast(self.config.k)
        v = self.visible(batch["image"])
        loss = self.belief.up_down_loss(contrast, params, v, batch["weight"], rng)
        return loss, Aux(model_state, {}, batch.get("carry"))

    @property
    def lengths(self) -> list[int]:
        """The steps of each phase."""
        count, last = len(self.hidden), self.config.up_down_steps
        found = [self._greedy // count] * count
        found[-1] += self._greedy - sum(found)
        return [*found, *([last] if last else [])]

    @property
    def _greedy(self) -> int:
        """The steps that train one layer after the other."""
        assert self.config.steps is not None
        return self.config.steps - self.config.up_down_steps

    def phases(self) -> Sequence[Phase]:
        # --check looks at all layers at once.
        if self.config.model == "rbm" or self.config.check:
            return ()
        phases = []
        for n, length in enumerate(self.lengths):
            tunes = n == len(self.hidden)
            trained = UNTIED if tunes else f"^{layer_name(n)}/"
            tx = make_optimizer(
                dataclasses.replace(self.config, steps=length), ((trained, False), ("", True))
            )
            begin = None
            if tunes:
                begin = self.belief.untied
            elif n:
                begin = functools.partial(self.belief.started, number=n)
            loss = self.up_down_loss if tunes else functools.partial(self.layer_loss, n)
            phases.append(Phase(length, loss, tx, begin))
        return phases

    def step(self) -> Step:
        # One of its own to --check, which cannot derive a loss whose value has another gradient.
        return super().step()

    # The evaluation.

    def stack(self, params: Params, step: jax.Array | int | None = None) -> Stack:
        """Returns the network that a run reports after a step, by default at the end."""
        tied = self.belief.stack(params)
        if not self.config.up_down_steps:
            return tied
        untied = self.belief.untied_stack(params)
        if step is None:
            return untied
        is_tuned = jnp.asarray(step) > self._greedy
        return jax.tree.map(functools.partial(jnp.where, is_tuned), untied, tied)

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        v, weight = self.visible(batch["image"]), batch["weight"]
        stack = self.stack(state.params, state.step)
        found = {"loss": reconstruction(stack, v)}
        if self.config.model == "rbm":
            found["free_energy"] = stack.top.free_energy(v)
            if not stack.top.units.has_precision:
                found["pseudo_log_likelihood"] = pseudo_log_likelihood(stack.top, v)
        else:
            inputs = [v, *means_up(self.belief.stack(state.params), v)]
            for n, machine in enumerate(self.belief.machines(state.params)):
                found[f"{layer_name(n)}_loss"] = machine.deviance(*inputs[n : n + 2])
        return {name: Mean.of(values, weight) for name, values in found.items()}

    def observe(self, variables: Variables, step: int) -> str | None:
        params = self.computing(variables)["params"]
        is_tuned = self.config.up_down_steps and step > self._greedy
        stack = self.stack(params) if is_tuned else self.belief.stack(params)
        report.write_samples(self, stack, step)
        return None

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        return launch.Check()

    def finish(self, outcome: launch.Outcome) -> launch.Outcome:
        images = {name: split.gather(np.arange(len(split))) for name, split in self.judged.items()}
        visible = jax.jit(self.visible)
        judged = {name: visible(arrays["image"]) for name, arrays in images.items()}
        found = likelihood.judge(
            self.belief, self.stack, outcome.variables["params"], judged, self.mean, self.config
        )
        for line in found.lines:
            launch.say(line)
        return outcome.extended(found.metrics, **found.summary)

    def predict(self, variables: Variables, inputs: Sequence[Any]) -> np.ndarray:
        """Returns the means of the uppermost hidden units, float32 [N, H].

        Args:
            variables: of the machine.
            inputs: uint8 arrays [H, W, C] of the run's shape, or paths of image files. Grey pixels
                count as the probabilities of bits.
        """
        images = read_images(inputs, self.info.image_shape, self.info.bits)
        return np.asarray(self._codes(variables["params"], images), np.float32)

    @functools.cached_property
    def _codes(self) -> Any:
        return jax.jit(
            lambda params, images: means_up(self.stack(params), self.visible(images))[-1]
        )

    def answers(self, inputs: Sequence[Any], outputs: Any) -> list[dict[str, Any]]:
        return [{"code": np.asarray(output).tolist()} for output in outputs]

    @functools.cached_property
    def walk(self) -> Any:
        """Takes the top's chains [B, V] some steps further; gives them and the images' means."""

        def walk(stack: Stack, v: jax.Array, rng: jax.Array, steps: int) -> Any:
            going, below = jax.random.split(rng)
            v, h = gibbs(stack.top, v, going, steps=steps)
            return v, generated(stack, v, h, below)

        return jax.jit(walk, static_argnums=3)

    def report(self, outcome: launch.Outcome) -> list[Section]:
        params = self.computing(outcome.variables)["params"]
        return report.sections(self, params)


if __name__ == "__main__":
    launch.main(Boltzmann)
