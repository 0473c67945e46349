"""Jobs whose parameters are a picture, which a frozen image network looks at.

A step changes the picture by the gradient of a loss on the network's activations; in everything
else the run is like any other. There is no data to draw batches from: the batch of a step only says
at which size the network sees the picture.

Shapes: H W height and width of the picture, h w those at which a step sees it, C its 3 channels.
"""

import abc
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import ClassVar, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import optim
from dlcore.launch.config import DevicesConfig, OptimizerConfig
from dlcore.launch.fields import integer
from dlcore.launch.frozen_network import CLASSES, NetworkConfig, NetworkTask, as_pixels
from dlcore.launch.process import say
from dlcore.launch.task import Data, Outcome
from dlcore.types import Batch, Params, TrainState, Variables

# Of a smoke test, which a few halvings leave large enough for a network.
_SMOKE_SIZE = 96


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureConfig(NetworkConfig, OptimizerConfig, DevicesConfig):
    """The configuration of a job whose parameters are a picture, its batches' only example."""

    batch_size: ClassVar[int] = 1
    size: int = integer(256, 1, 1 << 14, "longer side of the picture in pixels")

    def shrunk(self) -> Self:
        return dataclasses.replace(super().shrunk(), size=min(self.size, _SMOKE_SIZE))


@dataclasses.dataclass(frozen=True)
class PictureInfo:
    """The facts that a run whose parameters are a picture remembers.

    Attributes:
        shape: the shape (H, W, C) of the picture.
        classes: the number of classes that the network tells apart.
    """

    shape: tuple[int, int, int]
    classes: int = CLASSES


ConfigT = TypeVar("ConfigT", bound=PictureConfig)
InfoT = TypeVar("InfoT", bound=PictureInfo)


class PictureTask(NetworkTask[ConfigT, InfoT]):
    """A job that changes a picture by a loss on the activations of a frozen network.

    A subclass defines what a subclass of `NetworkTask` does, and can call `seen` in its `loss`:

        def loss(self, params, model_state, batch, rng):
            activations = self.activations(model_state, self.seen(params, batch))
            cost = ((activations["conv1"] - model_state["targets"]["conv1"]) ** 2).sum()
            return Mean.of(cost[None]), Aux(model_state, {})

    The parameters of the state are {"picture": [1, H, W, C]}, where 0 is black and 1 is full
    intensity. A job with other parameters overrides `first_params` and `draw`.

    At its end the run writes WORKDIR/picture.png.
    """

    # What each job has.

    @abc.abstractmethod
    def read(self) -> dict[str, np.ndarray]:
        """Returns by name the pictures that the job starts from, uint8 [h, w, C].

        They are read once, into `pictures`; the first one sets the size of the picture.

        Raises:
            InputError: when one cannot be read.
        """

    # What a job may have.

    def view(self, step: int) -> tuple[int, int]:
        """Returns the height and width at which the step after a number of others sees the picture.

        By default these are the picture's own. They may depend on the step alone; JAX compiles the
        step for each new size.
        """
        return self.info.shape[:2]

    @property
    def classes(self) -> int:
        return self.info.classes

    @property
    def smallest_view(self) -> tuple[int, int]:
        return self.info.shape[:2]

    def first_params(self, key: jax.Array) -> Params:
        """Returns the parameters that a run starts from where `start` returns no picture: noise."""
        return {"picture": jax.random.uniform(key, (1, *self.info.shape))}

    def start(self) -> np.ndarray | None:
        """Returns the picture to start from, uint8 [H, W, C]; None to start from `first_params`."""
        return None

    def draw(self, params: Params) -> jax.Array:
        """Returns the picture that the parameters describe, [1, H, W, C] with values of 0 to 1."""
        picture: jax.Array = params["picture"]
        return picture

    def develop(self, picture: np.ndarray) -> np.ndarray:
        """Returns a picture as it is to be written, such as with other colours; uint8 [H, W, C]."""
        return picture

    def info_of(self, shape: tuple[int, int, int]) -> InfoT:
        """Returns the facts that the run remembers, given the shape of the picture."""
        _, info = self.parts()
        found: InfoT = info(shape, self._count_classes())
        return found

    # What jobs use.

    def seen(self, params: Params, batch: Batch) -> jax.Array:
        """Returns the picture at the size at which this step sees it, [1, h, w, C]."""
        picture = self.draw(params)
        shape = (1, *batch["view"].shape[1:3], picture.shape[-1])
        return picture if shape == picture.shape else jax.image.resize(picture, shape, "linear")

    def data(self) -> Data[InfoT]:
        self.pictures = self.read()
        height, width, channels = next(iter(self.pictures.values())).shape
        # What names the layers may need to know them.
        self.info = self.parts()[1]((height, width, channels))
        self.info = self.info_of((height, width, channels))
        self.check_layers()
        return Data(self.batches, lambda: iter([_batch(self.info.shape[:2], False)]), self.info)

    def batches(self, start: int) -> Iterator[Batch]:
        """Yields the batch of each step, which holds only the size of the picture."""
        for step in itertools.count(start):
            size = self.view(step)
            yield _batch(size, step > 0 and self.view(step - 1) != size)

    def init(self, key: jax.Array) -> Variables:
        network_key, picture_key = jax.random.split(key)
        return {"params": self.first_params(picture_key), **self.init_network(network_key)}

    def adopt(self, state: TrainState) -> TrainState:
        state = super().adopt(state)
        params = state.params
        first = self.start()
        if first is not None:
            picture = jnp.asarray(first[None] / np.float32(255), params["picture"].dtype)
            params = {**params, "picture": picture}
        self.write_picture({"params": params}, self.stage(0))
        opt_state = optim.start_average(state.opt_state, params)
        return state.replace(params=params, opt_state=opt_state)

    def _count_classes(self) -> int:
        """Returns how many classes the network tells apart, if the job looks at its output."""
        if self.config.init_from is None or "output" not in self.layers:
            return CLASSES
        from dlcore.launch.loading import load

        folder = pathlib.Path(self.config.init_from).expanduser()
        names = getattr(load(folder).info, "class_names", ()) if folder.is_dir() else ()
        return len(names) or CLASSES

    # What a run writes.

    def shown(self, variables: Variables) -> np.ndarray:
        picture = np.asarray(jax.jit(self.draw)(variables["params"]), np.float32)[0]
        return self.develop(as_pixels(picture))

    def finish(self, outcome: Outcome) -> Outcome:
        target = self.workdir / "picture.png"
        self.write_picture(outcome.variables, target)
        say(f"picture: {target}")
        return outcome


def _batch(size: Sequence[int], anew: bool) -> Batch:
    # What is static in a compiled step are shapes, so an array of no numbers tells the size.
    return {
        "view": np.zeros((1, *size, 0), np.float32),
        "anew": np.full(1, anew, np.float32),
        "weight": np.ones(1, np.float32),
    }
