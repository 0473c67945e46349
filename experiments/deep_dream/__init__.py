"""Deep dream and feature visualisation: a picture becomes what a layer of a network likes to see.

By default a photograph that scikit-learn ships dreams in four octaves of what a layer of a random
network sees in it, which needs no network and no file; `--init_from` gives the network weights.
`--start=noise --parameters=fourier` shows what a channel, a neuron or a class looks for. With
`--zoom=N` each of N frames is dreamt on an enlarged middle of the one before; they are written as
GIF. A run that is killed goes on from its last checkpoint, bit for bit.
"""

import dataclasses
import functools
import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from dlcore import launch, optim
from dlcore.data.pictures import PHOTOGRAPHS, photograph, read_picture
from dlcore.errors import InputError
from dlcore.files import write_whole
from dlcore.launch.fields import LARGEST, LARGEST_NUMBER, choice, integer, number, path, text
from dlcore.launch.picture_task import PictureConfig, PictureInfo, PictureTask
from dlcore.losses import total_variation
from dlcore.models import image_spec
from dlcore.nn.augment import Augment, augmentation
from dlcore.nn.octaves import Size, octave_sizes, roll, zoom_in
from dlcore.nn.spectrum import colour_axes
from dlcore.train.logs import writing
from dlcore.types import Aux, Batch, Mean, Metrics, Params, PyTree, Step, TrainState

from . import objectives
from .canvas import Canvas, Pixels, Spectrum
from .tiles import mean_over_tiles

# What suits the parameters: rule, learning rate, steps of an octave. The rate of pixels is that of
# the published program, 1.5 of 255 levels; those of spectra are of Lucid's.
_SUITS = {"pixels": ("sgd", 1.5 / 255, 20), "fourier": ("adam", 0.05, 256)}
# Transformations under which a feature must stay what it is (Olah et al. 2017).
_ROBUST = "crop:12,scale:1.1,rotate:10"
_STAGES = 8  # pictures that are written on the way where there is one octave
_GREY, _NOISE = 128, 16  # level of the noise to start from, and how far it goes to either side
_GUIDE = 224  # longer side of a guide in pixels, where the network names none
_FRAME_MS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    PictureConfig, steps=None, eval_every=None, log_every=1, optimizer=None, learning_rate=None
):
    """The configuration of a dream.

    Without `steps` there are as many as the octaves of all frames take, without `eval_every` a
    picture is written after each octave, and optimizer, learning rate, `octave_steps` and `augment`
    are those that suit the parameters where they are not given.
    """

    # Pixels are cut to 0..1 and begin anew with each frame, which an average does not see.
    group_conditions = {"ema": {"parameters": ("fourier",)}}

    picture: str = path(
        PHOTOGRAPHS[0],
        f"picture to start from: an image file, or one of {', '.join(PHOTOGRAPHS)}",
        when={"start": ("picture",)},
    )
    start: str = choice("picture", ("picture", "noise"), "picture that a dream starts from")
    parameters: str = choice(
        "pixels",
        tuple(_SUITS),
        "what the steps change: the pixels, or the Fourier coefficients of the picture",
        when={"start": ("noise",)},
    )
    objective: str = text(
        "layer:fire5",
        "what should grow: layer:NAME, or number 3 of channel:NAME:3, neuron:NAME:3 (in "
        "the middle) "
        "or class:3",
    )
    guide: str | None = path(
        None,
        "picture whose features the layer should see",
        when={"objective": lambda given: given.startswith("layer:")},
    )
    octaves: int = integer(
        4,
        1,
        99,
        "sizes, from the smallest to that of the picture",
        when={"parameters": ("pixels",)},
    )
    octave_scale: float = number(
        1.4,
        1,
        100,
        "factor from each size to the next",
        when={"parameters": ("pixels",), "octaves": lambda count: count > 1},
    )
    octave_steps: int | None = integer(
        None, 1, LARGEST, "steps of each octave; default 20, 256 of --parameters=fourier"
    )
    jitter: int = integer(
        32, 0, LARGEST, "largest number of pixels by which each step rolls the picture"
    )
    augment: str | None = text(
        None,
        "random changes of what each step sees, with numbers where wanted; "
        f"default {_ROBUST} with --start=noise, else none",
    )
    variation_weight: float = number(
        0.0,
        0,
        LARGEST_NUMBER,
        "weight of the total variation, which is subtracted from the objective",
    )
    tile: int = integer(1024, 1, LARGEST, "side of the tiles that the network sees one by one")
    zoom: int | None = integer(
        None, 1, 100_000, "frames of a recursive zoom", free=True, when={"parameters": ("pixels",)}
    )
    zoom_share: float = number(
        0.05,
        0,
        1,
        "share of height and width that each frame of --zoom cuts off",
        below=True,
        when={"zoom": lambda frames: frames is not None},
    )

    @property
    def frame_steps(self) -> int:
        """The steps of all octaves; settled."""
        assert self.octave_steps is not None
        return self.octaves_read * self.octave_steps

    @property
    def octaves_read(self) -> int:
        """The number of octaves, of which a spectrum has one."""
        return self.octaves if self.parameters == "pixels" else 1

    def settled(self) -> "Config":
        """Returns the configuration with what suits in place of what was not given."""
        optimizer, rate, steps = _SUITS[self.parameters]
        config = dataclasses.replace(
            self,
            optimizer=self.optimizer or optimizer,
            learning_rate=rate if self.learning_rate is None else self.learning_rate,
            octave_steps=self.octave_steps or steps,
            augment=self.augment or (_ROBUST if self.start == "noise" else "none"),
        )
        every = self.octave_steps or steps
        if config.octaves_read == 1 and config.zoom is None:
            every = max(1, every // _STAGES)
        return dataclasses.replace(
            config,
            steps=self.steps or config.frame_steps * (config.zoom or 1),
            eval_every=every if self.eval_every is None else self.eval_every,
        )

    def shrunk(self) -> "Config":
        octaves = 1 if self.unread("octaves") else min(self.octaves, 2)
        config = super().shrunk()
        values: dict[str, Any] = {"octave_steps": 2 // octaves}
        if not self.unread("octaves"):
            values["octaves"] = octaves
        return dataclasses.replace(config, **values)


@dataclasses.dataclass(frozen=True)
class Info(PictureInfo):
    """The facts that a dream remembers.

    Attributes:
        guide_shape: (h, w, C) of the guide; None without one.
    """

    guide_shape: tuple[int, int, int] | None = None


class DeepDream(PictureTask[Config, Info]):
    """A picture changed by the gradient of what a network sees in it."""

    metric = ("objective", "max")

    def __init__(self, config: Config):
        super().__init__(config.settled())

    @functools.cached_property
    def objective(self) -> objectives.Objective:
        """The objective that the run makes grow."""
        return objectives.parse(self.config.objective)

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.objective.layer,)

    def read(self) -> dict[str, np.ndarray]:
        config = self.config
        if config.zoom is not None and config.frame_steps % (config.eval_every or 1):
            raise InputError(
                f"--eval_every={config.eval_every} writes no picture after the "
                f"{config.frame_steps} steps of a frame; give a divisor of them"
            )
        if config.start == "picture":
            found = {"start": read_picture(config.picture, config.size)}
        else:
            levels = np.random.default_rng(config.seed).integers(
                _GREY - _NOISE, _GREY + _NOISE, (config.size, config.size, 3)
            )
            found = {"start": levels.astype(np.uint8)}
        if config.guide is not None:
            side = image_spec(config.model).image_size or _GUIDE
            found["guide"] = read_picture(config.guide, side)
        return found

    def info_of(self, shape: tuple[int, int, int]) -> Info:
        guide = self.pictures.get("guide")
        return dataclasses.replace(
            super().info_of(shape),
            guide_shape=None if guide is None else (guide.shape[0], guide.shape[1], 3),
        )

    def check_layers(self) -> None:
        height, width = self.smallest_view
        try:
            self.layer_names  # noqa: B018, which traces the network
        except InputError as error:
            raise InputError(
                f"the smallest of {self.config.octaves_read} octaves: {error}; give fewer octaves "
                "or a larger --size"
            ) from error
        super().check_layers()
        self.augment  # noqa: B018, which reads the text of --augment
        shape = self.activation_shapes(height, width)[self.objective.layer].shape
        self.objective.check(self.config.objective, shape[-1])

    @functools.cached_property
    def augment(self) -> Augment:
        """The random changes of what a step sees, of 0..255; what comes in from outside is grey."""
        return augmentation(self.config.augment or "none", fill=255 / 2)

    # What is seen.

    @functools.cached_property
    def sizes(self) -> tuple[Size, ...]:
        """The sizes of the octaves, the smallest first."""
        height, width, _ = self.info.shape
        count = self.config.octaves_read
        return octave_sizes(height, width, octaves=count, scale=self.config.octave_scale)

    @functools.cached_property
    def canvas(self) -> Canvas:
        """The parametrisation of the picture."""
        if self.config.parameters == "pixels":
            return Pixels(self.sizes)
        pixels = np.concatenate([photograph(name).reshape(-1, 3) for name in PHOTOGRAPHS])
        return Spectrum(self.sizes[-1], colour_axes(pixels))

    def view(self, step: int) -> Size:
        return self.sizes[self.octave(step)]

    def octave(self, step: int) -> int:
        """Returns the number of the octave of the step after so many others.

        The last octave goes on where there are more steps than one frame takes, unless each
        further frame begins anew.
        """
        config, last = self.config, len(self.sizes) - 1
        if config.zoom is not None:
            step %= config.frame_steps
        assert config.octave_steps is not None
        return min(step // config.octave_steps, last)

    @property
    def smallest_view(self) -> Size:
        return self.sizes[0]

    def first_params(self, key: jax.Array) -> Params:
        return self.canvas.init(key)

    def start(self) -> np.ndarray | None:
        return self.pictures["start"] if self.config.parameters == "pixels" else None

    def draw(self, params: Params) -> jax.Array:
        return self.canvas.picture(params, len(self.sizes) - 1)

    def octave_of(self, batch: Batch) -> int:
        """Returns the number of the octave that a step sees."""
        return self.sizes.index(batch["view"].shape[1:3])

    def target_shapes(self) -> PyTree:
        shape = self.info.guide_shape
        if shape is None:
            return {}
        *places, channels = self.activation_shapes(*shape[:2])[self.objective.layer].shape
        return {"guide": jax.ShapeDtypeStruct((int(np.prod(places)), channels), jnp.float32)}

    def targets(self, model_state: PyTree) -> PyTree:
        if self.info.guide_shape is None:
            return {}
        picture = jnp.asarray(self.pictures["guide"][None] / np.float32(255))
        found = self.activations(model_state, picture)[self.objective.layer]
        return {"guide": found.reshape(-1, found.shape[-1])}

    # What a step does.

    def value(self, model_state: PyTree, pictures: jax.Array) -> jax.Array:
        """Returns the objective of pictures [1, h, w, 3], [1], seen tile by tile."""
        guide = model_state["targets"].get("guide")

        def of_one(pictures: jax.Array) -> jax.Array:
            return self.objective.of(self.activations(model_state, pictures), guide)

        return mean_over_tiles(of_one, pictures, self.config.tile)

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        roll_key, augment_key = jax.random.split(rng)
        picture = self.canvas.picture(params, self.octave_of(batch))
        moved = roll(picture, roll_key, self.config.jitter)
        looked = self.augment(augment_key, {"image": 255 * moved})["image"] / 255
        value = self.value(model_state, looked.astype(picture.dtype))
        variation = total_variation(picture)
        metrics = {"objective": Mean.of(value), "total_variation": Mean.of(variation)}
        loss = self.config.variation_weight * variation - value
        return Mean.of(loss, batch["weight"]), Aux(model_state, metrics)

    def optimizer(self) -> optax.GradientTransformation:
        return optax.chain(optim.divide_by_mean_magnitude(), super().optimizer())

    def step(self) -> Step:
        along_gradient = super().step()

        def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            octave = self.octave_of(batch)
            if self.config.zoom is not None and octave == 0:
                is_next = (state.step > 0) & (state.step % self.config.frame_steps == 0)
                params = jax.lax.cond(is_next, self.next_frame, lambda now: now, state.params)
                state = state.replace(params=params)
            new, metrics = along_gradient(state, batch)
            kept = self.canvas.kept(state.params, new.params, octave)
            return new.replace(params=kept), metrics

        return step

    def next_frame(self, params: Params) -> Params:
        """Returns the parameters that the next frame of a zoom starts from."""
        assert isinstance(self.canvas, Pixels)
        return self.canvas.fresh(zoom_in(self.draw(params), self.config.zoom_share))

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        pictures = {"": self.draw(state.params)}
        if "picture" in state.params:
            # Without its details, as the dream, or this frame of it, began.
            pictures["_before"] = state.params["picture"]
        measures = {}
        for when, picture in pictures.items():
            measures[f"objective{when}"] = Mean.of(self.value(state.model_state, picture))
            measures[f"total_variation{when}"] = Mean.of(total_variation(picture))
        return measures

    # What a run writes.

    def finish(self, outcome: launch.Outcome) -> launch.Outcome:
        outcome = super().finish(outcome)
        if outcome.metrics["objective"] == outcome.metrics.get("objective_before"):
            launch.say(
                f"--objective={self.config.objective} did not change: it has no gradient, for "
                "example "
                "because all rectifiers give 0; choose another layer, picture or network"
            )
        if self.config.zoom is not None:
            self.write_frames(outcome.step // self.config.frame_steps)
        return outcome

    def write_frames(self, count: int) -> None:
        """Writes the picture of the start and so many frames as GIF."""
        stages = [self.stage(number * self.config.frame_steps) for number in range(count + 1)]
        target, buffer = self.workdir / "zoom.gif", io.BytesIO()
        first, *rest = (Image.fromarray(read_picture(str(stage))) for stage in stages)
        first.save(buffer, "gif", save_all=True, append_images=rest, duration=_FRAME_MS, loop=0)
        with writing(target):
            write_whole(target, buffer.getvalue())
        launch.say(f"frames of the zoom: {target}")
