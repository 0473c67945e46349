"""Jobs whose parameters are a picture, which a frozen network of images looks at.

A step changes the picture by the gradient of what the network's activations say of it; everything
else is a run as any other. The frozen network, the scaling of its images and the targets of the
activations are model state, so that a checkpoint is all that a run needs to go on. There is no data
to draw batches from: the batch of a step says in which size the picture is seen.

Shapes: H W height and width of the picture, h w those that a step sees, C its 3 channels.
"""

import abc
import contextlib
import dataclasses
import functools
import io
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Self, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dlcore import optim
from dlcore.errors import InputError
from dlcore.files import read_json_lines, write_whole
from dlcore.launch.config import DevicesConfig, OptimizerConfig, RunConfig
from dlcore.launch.fields import choice, integer, path, switch, text, texts
from dlcore.launch.options import parse_options
from dlcore.launch.process import say
from dlcore.launch.task import Data, Outcome, Task
from dlcore.launch.weights import IMAGENET, Weights, fitted, modules_of, read_weights, some
from dlcore.models import IMAGE_MODELS, image_spec
from dlcore.models.detection.body import Body
from dlcore.nn.pooling import average_for_max
from dlcore.paths import leaves_by_path
from dlcore.report import Section, picture_section, plots
from dlcore.train.logs import writing
from dlcore.train.transplant import transplant
from dlcore.types import Activations, Batch, Params, PyTree, TrainState, Variables

# The classes of the networks whose weights are public.
_CLASSES = 1000
# The stages of a picture in a report's strip.
_STAGES = 8
_FOLDER = "pictures"
# Of a smoke test, which a few halvings leave large enough for a network.
_SMOKE_SIZE = 96


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(RunConfig):
    """The frozen network that looks at pictures."""

    title = "Network"

    model: str = choice("squeezenet1_1", IMAGE_MODELS, "network that looks at the picture")
    option: tuple[str, ...] = texts(
        "NAME=VALUE of the model, such as width=0.5; a wrong name lists all"
    )
    init_from: str | None = path(
        None, "run or .safetensors or .pth file with the network's weights; default random ones"
    )
    init_prefix: str | None = text(
        None,
        "with --init_from=FILE, what stands before the names to take, such as model_ema",
        when={"init_from": lambda source: source is not None},
    )
    average_pool: bool = switch(False, "let the network's max pools average")
    size: int = integer(256, 1, 1 << 14, "longer side of the picture in pixels")

    def shrunk(self) -> Self:
        return dataclasses.replace(super().shrunk(), size=min(self.size, _SMOKE_SIZE))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureConfig(NetworkConfig, OptimizerConfig, DevicesConfig):
    """The configuration of a job whose parameters are a picture, the one example of its batches."""

    batch_size: ClassVar[int] = 1


@dataclasses.dataclass(frozen=True)
class PictureInfo:
    """The facts that a run whose parameters are a picture remembers.

    Attributes:
        shape: (H, W, C) of the picture.
        classes: of the network.
    """

    shape: tuple[int, int, int]
    classes: int = _CLASSES


ConfigT = TypeVar("ConfigT", bound=NetworkConfig)
InfoT = TypeVar("InfoT", bound=PictureInfo)


class PictureTask(Task[ConfigT, InfoT]):
    """A job that changes a picture by what a frozen network's activations say of it.

    A subclass says which `layers` it looks at, what they should be like (`targets`), and its `loss`
    and `metrics`, for which it has `seen` and `activations`:

        def loss(self, params, model_state, batch, rng):
            activations = self.activations(model_state, self.seen(params, batch))
            cost = ((activations["conv1"] - model_state["targets"]["conv1"]) ** 2).sum()
            return Mean.of(cost[None]), Aux(model_state, {})

    The state has the parameters {"picture": [1, H, W, C]}, of which 0 is black and 1 is full, and
    as model state {"network": its variables, "scaling": {"mean", "deviation"}, "targets": ...}. A
    job with other parameters overrides `first_params` and `draw`.

    Each evaluation writes WORKDIR/pictures/step_000100.png, the end WORKDIR/picture.png.
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

    @abc.abstractmethod
    def read(self) -> dict[str, np.ndarray]:
        """Returns the pictures that the job starts from by name, uint8 [h, w, C].

        They are read once, into `pictures`; the first one has the size of the picture.

        Raises:
            InputError: when one cannot be read.
        """

    def targets(self, model_state: PyTree) -> PyTree:
        """Returns what the loss compares activations with, computed once from `pictures`.

        Args:
            model_state: with "network" and "scaling".
        """
        return {}

    def target_shapes(self) -> PyTree:
        """Returns the shapes of the targets, which a loaded run knows without its pictures."""
        return {}

    # What a job may have.

    def view(self, step: int) -> tuple[int, int]:
        """Returns height and width in which the step after so many others sees the picture.

        By default those of the picture. A function of the step alone; each new size is compiled.
        """
        return self.info.shape[:2]

    @property
    def smallest_view(self) -> tuple[int, int]:
        """The smallest height and width in which a step sees the picture."""
        return self.info.shape[:2]

    def first_params(self, key: jax.Array) -> Params:
        """Returns the parameters that a run starts from where `start` gives no picture: noise."""
        return {"picture": jax.random.uniform(key, (1, *self.info.shape))}

    def start(self) -> np.ndarray | None:
        """Returns the picture to start from, uint8 [H, W, C]; None for `first_params`."""
        return None

    def draw(self, params: Params) -> jax.Array:
        """Returns the picture of the parameters, [1, H, W, C] with values of 0 to 1."""
        picture: jax.Array = params["picture"]
        return picture

    def develop(self, picture: np.ndarray) -> np.ndarray:
        """Returns a picture as it is written, such as with other colours; uint8 [H, W, C]."""
        return picture

    def info_of(self, shape: tuple[int, int, int]) -> InfoT:
        """Returns what the run remembers, given the shape of the picture."""
        _, info = self.parts()
        found: InfoT = info(shape, self._count_classes())
        return found

    # What jobs use.

    def seen(self, params: Params, batch: Batch) -> jax.Array:
        """Returns the picture in the size in which this step sees it, [1, h, w, C]."""
        picture = self.draw(params)
        shape = (1, *batch["view"].shape[1:3], picture.shape[-1])
        return picture if shape == picture.shape else jax.image.resize(picture, shape, "linear")

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
        """Returns the shapes of the activations of `layers` for a picture of a size."""
        picture = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
        found: Activations = jax.eval_shape(
            lambda key, x: self.activations(self._first_network(key), x), jax.random.key(0), picture
        )
        return found

    @property
    def _build(self) -> Callable[[], nn.Module]:
        build = image_spec(self.config.model).build
        options = parse_options(self.config.model, build, self.config.option)
        return functools.partial(build, num_classes=self.info.classes, **options)

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
            InputError: when the picture is too small for the network where it is seen smallest.
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
            InputError: for one that it does not have.
        """
        for name in self.layers:
            if name not in self.layer_names:
                raise InputError(
                    f"{self.config.model} has no layer {name!r}; choose of: "
                    f"{', '.join(self.layer_names)}"
                )

    def data(self) -> Data[InfoT]:
        self.pictures = self.read()
        height, width, channels = next(iter(self.pictures.values())).shape
        # What names the layers may need to know them.
        self.info = self.parts()[1]((height, width, channels))
        self.info = self.info_of((height, width, channels))
        self.check_layers()
        return Data(self.batches, lambda: iter([_batch(self.info.shape[:2], False)]), self.info)

    def batches(self, start: int) -> Iterator[Batch]:
        """Yields what each step sees: the size of the picture, and nothing of it."""
        for step in itertools.count(start):
            size = self.view(step)
            yield _batch(size, step > 0 and self.view(step - 1) != size)

    def _first_network(self, key: jax.Array) -> dict[str, PyTree]:
        image = jnp.zeros((1, *self.smallest_view, 3))
        variables = self.network.init(key, image)
        scaling = {
            name: jnp.asarray(value, jnp.float32) for name, value in IMAGENET._asdict().items()
        }
        return {"network": dict(variables), "scaling": scaling}

    def init(self, key: jax.Array) -> Variables:
        network_key, picture_key = jax.random.split(key)
        targets = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self.target_shapes())
        return {
            "params": self.first_params(picture_key),
            **self._first_network(network_key),
            "targets": targets,
        }

    def adopt(self, state: TrainState) -> TrainState:
        model_state = dict(state.model_state)
        if self.config.init_from is not None:
            model_state |= self._weights(model_state["network"])
        model_state["targets"] = jax.jit(self.targets)(model_state)
        params = state.params
        first = self.start()
        if first is not None:
            picture = jnp.asarray(first[None] / np.float32(255), params["picture"].dtype)
            params = {**params, "picture": picture}
        self.write_picture({"params": params}, self.stage(0))
        opt_state = optim.start_average(state.opt_state, params)
        return state.replace(params=params, model_state=model_state, opt_state=opt_state)

    def _weights(self, network: Variables) -> dict[str, PyTree]:
        """Returns the network with the weights of --init_from, and the scaling of its images.

        Raises:
            InputError: when nothing can be read there, or not all that the layers need.
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
                f"{config.model} need: {some(lost)} ({reason}); choose the model and its options "
                "that the weights are of"
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

    def _count_classes(self) -> int:
        """Returns how many classes the network tells apart, where the job looks at its output."""
        if self.config.init_from is None or "output" not in self.layers:
            return _CLASSES
        from dlcore.launch.loading import load

        folder = pathlib.Path(self.config.init_from).expanduser()
        names = getattr(load(folder).info, "class_names", ()) if folder.is_dir() else ()
        return len(names) or _CLASSES

    # What a run writes.

    def stage(self, step: int) -> pathlib.Path:
        """Returns where the picture after a step is written."""
        return self.workdir / _FOLDER / f"step_{step:06d}.png"

    def write_picture(self, variables: Variables, target: pathlib.Path) -> None:
        """Writes the picture of the parameters as PNG; values beyond 0..1 are cut."""
        picture = np.asarray(jax.jit(self.draw)(variables["params"]), np.float32)[0]
        _save(self.develop(np.rint(255 * picture.clip(0, 1)).astype(np.uint8)), target)

    def observe(self, variables: Variables, step: int) -> str | None:
        self.write_picture(variables, self.stage(step))
        return None

    def finish(self, outcome: Outcome) -> Outcome:
        target = self.workdir / "picture.png"
        self.write_picture(outcome.variables, target)
        say(f"picture: {target}")
        return outcome

    def report(self, outcome: Outcome) -> Sequence[Section]:
        stages = sorted((self.workdir / _FOLDER).glob("step_*.png"))
        kept = [stages[n] for n in np.unique(np.linspace(0, len(stages) - 1, _STAGES, dtype=int))]
        shown = {"": np.stack([_read_png(stage) for stage in kept])}
        steps = ", ".join(str(int(stage.stem.partition("_")[2])) for stage in kept)
        strip = picture_section(
            "Stages",
            "stages",
            lambda target: plots.plot_rows(shown, target, scale=2.5),
            text=f"The picture after {steps} steps.",
        )
        return [strip, *self._curves()]

    def _curves(self) -> Iterator[Section]:
        """Yields the curves of the metrics that are called by layers, such as "style_conv1"."""
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


def _batch(size: Sequence[int], anew: bool) -> Batch:
    # What is static in a compiled step are shapes, so an array of no numbers tells the size.
    return {
        "view": np.zeros((1, *size, 0), np.float32),
        "anew": np.full(1, anew, np.float32),
        "weight": np.ones(1, np.float32),
    }


def _save(picture: np.ndarray, target: pathlib.Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, buffer.getvalue())


def _read_png(path: pathlib.Path) -> np.ndarray:
    with Image.open(path, formats=("PNG",)) as image:
        return np.asarray(image.convert("RGB"))
