"""Jobs in which a frozen image network looks at pictures and so decides how they should change.

Training changes either a picture (`dlcore.launch.picture_task`) or a network that makes pictures.
The frozen network, the scaling of its images and the targets of its activations are model state, so
that a run can continue from its checkpoint alone.

Shapes: B pictures, h w their height and width as the network sees them, C its 3 channels.
"""

import abc
import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import InputError
from dlcore.files import read_json_lines
from dlcore.launch.config import RunConfig
from dlcore.launch.fields import choice, path, switch, text, texts
from dlcore.launch.options import parse_options
from dlcore.launch.process import say
from dlcore.launch.stages import save_picture, stage, stages_section
from dlcore.launch.task import Outcome, Task
from dlcore.launch.weights import IMAGENET, Weights, fitted, modules_of, read_weights, some
from dlcore.models import IMAGE_MODELS, image_spec
from dlcore.models.detection.body import Body
from dlcore.nn.pooling import average_for_max
from dlcore.paths import leaves_by_path
from dlcore.report import Section, picture_section, plots
from dlcore.train.transplant import transplant
from dlcore.types import Activations, PyTree, TrainState, Variables

# The classes of the networks whose weights are public.
CLASSES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(RunConfig):
    """The frozen network that looks at pictures."""

    title = "Network"

    model: str = choice("squeezenet1_1", IMAGE_MODELS, "network that looks at the picture")
    option: tuple[str, ...] = texts(
        "NAME=VALUE of the model, such as width=0.5; a wrong name lists all"
    )
    init_from: str | None = path(
        None,
        "run, or .safetensors or .pth file, that has the network's weights; default random weights",
    )
    init_prefix: str | None = text(
        None,
        "with --init_from=FILE, prefix of the names to take, such as model_ema",
        when={"init_from": lambda source: source is not None},
    )
    average_pool: bool = switch(False, "replace the network's max pooling by average pooling")


ConfigT = TypeVar("ConfigT", bound=NetworkConfig)
InfoT = TypeVar("InfoT")


class NetworkTask(Task[ConfigT, InfoT]):
    """A job whose loss compares the activations of a frozen network with targets.

    A subclass defines which `layers` it looks at, what their activations should be (`targets`), and
    its `loss` and `metrics`, which can call `activations`:

        def loss(self, params, model_state, batch, rng):
            activations = self.activations(model_state, pictures)
            cost = ((activations["conv1"] - model_state["targets"]["conv1"]) ** 2).sum()
            ...

    Beside the parameters its variables have {"network": the network's variables, "scaling":
    {"mean", "deviation"}, "targets": ...}, which `init_network` returns.

    At its start and at each evaluation a run writes WORKDIR/pictures/step_000100.png.
    """

    @property
    def keep(self) -> int:
        # Each holds the frozen network.
        return 1

    # What each job has.

    @property
    @abc.abstractmethod
    def layers(self) -> tuple[str, ...]:
        """The names of the activations that the job looks at."""

    @property
    @abc.abstractmethod
    def smallest_view(self) -> tuple[int, int]:
        """The smallest height and width at which the network sees a picture."""

    @abc.abstractmethod
    def shown(self, variables: Variables) -> np.ndarray:
        """Returns a picture that shows how far the run has come, uint8 [H, W, C]."""

    # What a job may have.

    def targets(self, model_state: PyTree) -> PyTree:
        """Returns the targets of the activations, computed once, when a run starts.

        Args:
            model_state: the model state, with "network" and "scaling".
        """
        return {}

    def target_shapes(self) -> PyTree:
        """Returns the shapes of the targets, which a loaded run can tell without its pictures."""
        return {}

    @property
    def classes(self) -> int:
        """The number of classes that the network tells apart."""
        return CLASSES

    # What jobs use.

    def activations(self, model_state: PyTree, pictures: jax.Array) -> Activations:
        """Returns the activations of `layers` for pictures [B, h, w, C] of 0 to 1.

        The network computes in the type of the pictures; gradients reach the pictures alone.
        """
        scaling, kind = model_state["scaling"], pictures.dtype
        mean, deviation = (
            scaling[name].astype(kind)[None, None, None] for name in ("mean", "deviation")
        )
        network = jax.tree.map(lambda leaf: leaf.astype(kind), model_state["network"])
        x = (255 * pictures - mean) / deviation
        with average_for_max() if self.config.average_pool else contextlib.nullcontext():
            maps, _ = self.network.apply(network, x)
        return dict(zip(self.network.layers, maps, strict=True))

    def activation_shapes(self, height: int, width: int) -> Activations:
        """Returns the shapes of the activations of `layers` for a picture of a size.

        Raises:
            InputError: when the picture is too small for the network.
        """
        picture = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
        found: Activations = jax.eval_shape(
            lambda key, x: self.activations(self.first_network(key), x), jax.random.key(0), picture
        )
        return found

    @property
    def _build(self) -> Callable[[], nn.Module]:
        build = image_spec(self.config.model).build
        options = parse_options(self.config.model, build, self.config.option)
        return functools.partial(build, num_classes=self.classes, **options)

    @property
    def whole(self) -> nn.Module:
        """The network with all its layers."""
        return self._build()

    @functools.cached_property
    def network(self) -> Body:
        """The part of the network that leads to `layers`; the rest is never computed."""
        return Body(self._build, tuple(dict.fromkeys(self.layers)))

    @functools.cached_property
    def layer_names(self) -> tuple[str, ...]:
        """The names of all activations of the network, in order of execution.

        Raises:
            InputError: when the picture at its smallest is too small for the network.
        """
        names: list[str] = []

        def trace(picture: jax.Array) -> None:
            # Within a trace the activations are in order of execution; trees sort them.
            (_, activations), _ = self.whole.init_with_output(jax.random.key(0), picture)
            names.extend(activations)

        jax.eval_shape(trace, jax.ShapeDtypeStruct((1, *self.smallest_view, 3), jnp.float32))
        return tuple(names)

    def check_layers(self) -> None:
        """Checks that the network has the `layers`.

        Raises:
            InputError: for a layer that it does not have.
        """
        for name in self.layers:
            if name not in self.layer_names:
                raise InputError(
                    f"{self.config.model} has no layer {name!r}; choose one of: "
                    f"{', '.join(self.layer_names)}"
                )

    def first_network(self, key: jax.Array) -> dict[str, PyTree]:
        """Returns the network with random weights, and the scaling of its images."""
        image = jnp.zeros((1, *self.smallest_view, 3))
        variables = self.network.init(key, image)
        scaling = {
            name: jnp.asarray(value, jnp.float32) for name, value in IMAGENET._asdict().items()
        }
        return {"network": dict(variables), "scaling": scaling}

    def init_network(self, key: jax.Array) -> dict[str, PyTree]:
        """Returns the first model state: the network, its scaling, and targets of zeros."""
        targets = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self.target_shapes())
        return {**self.first_network(key), "targets": targets}

    def adopt(self, state: TrainState) -> TrainState:
        """Returns the state with the weights of --init_from and the targets computed from them."""
        model_state = dict(state.model_state)
        if self.config.init_from is not None:
            model_state |= self._weights(model_state["network"])
        model_state["targets"] = jax.jit(self.targets)(model_state)
        return state.replace(model_state=model_state)

    def _weights(self, network: Variables) -> dict[str, PyTree]:
        """Returns the network with the weights of --init_from, and the scaling of its images.

        Raises:
            InputError: when the weights there, or some that the layers need, cannot be read.
        """
        config = self.config
        assert config.init_from is not None
        weights = self._read_weights()
        source, target = leaves_by_path(weights.variables), leaves_by_path(network)
        first = f"params/{modules_of(self.whole, (*self.smallest_view, 3))[0]}/"
        source = {**source, **fitted(source, target, first, weights.channels, 3)}
        new, report = transplant(source, network)
        if lost := [*report.missing, *report.mismatched]:
            reason = report.mismatched.get(lost[0], f"it has {some(source)}")
            raise InputError(
                f"{config.init_from} lacks {len(lost)} of {len(target)} arrays that the layers of "
                f"{config.model} need: {some(lost)} ({reason}); choose the model and the "
                "options that the weights belong to"
            )
        say(f"{config.init_from}: restored all {len(target)} arrays that the layers need")
        scaling = {
            name: jnp.asarray(np.broadcast_to(value, 3), jnp.float32)
            for name, value in weights.scaling._asdict().items()
        }
        return {"network": new, "scaling": scaling}

    def _read_weights(self) -> Weights:
        config = self.config
        assert config.init_from is not None
        output = "output" in self.layers
        return read_weights(config.init_from, config.init_prefix, self.whole, output=output)

    # What a run writes.

    def stage(self, step: int) -> pathlib.Path:
        """Returns the path to which the picture after a step is written."""
        return stage(self.workdir, step)

    def write_picture(self, variables: Variables, target: pathlib.Path) -> None:
        """Writes the picture of `shown` as PNG."""
        save_picture(self.shown(variables), target)

    def observe(self, variables: Variables, step: int) -> str | None:
        self.write_picture(variables, self.stage(step))
        return None

    def report(self, outcome: Outcome) -> Sequence[Section]:
        strip = stages_section(self.workdir, 2.5, text="The picture")
        return [strip, *self._curves()]

    def _curves(self) -> Iterator[Section]:
        """Yields the curves of the metrics that are named after layers, such as "style_conv1"."""
        curves: dict[str, tuple[list[float], list[float]]] = {}
        for row in read_json_lines(self.workdir / "metrics.jsonl"):
            for name, value in row.items():
                if name.partition("_")[2] in self.layers and value is not None:
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(row["step"])
                    values.append(value)
        if curves:
            yield picture_section(
                "Layers",
                "layers",
                lambda target: plots.plot_lines(
                    curves, target, title="Loss by layer", x="step", y="part of the loss"
                ),
            )


def as_pixels(pictures: np.ndarray | jax.Array) -> np.ndarray:
    """Returns pictures of 0 to 1 as uint8 of 0 to 255; values outside the range are clipped."""
    return np.rint(255 * np.asarray(pictures, np.float32).clip(0, 1)).astype(np.uint8)
