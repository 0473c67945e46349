"""Style transfer: a picture with the content of one picture and the style of others.

By default a photograph of a temple in the style of one of a flower, both scikit-learn's, seen by a
network of random weights, which needs neither a file nor a network. `--content` and `--style` take
pictures, `--init_from` the weights of a network that was trained. `--texture` makes a texture of
the styles alone. Several `--style`, each with its `--mask`, are each for the white of their mask.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore import launch, optim
from dlcore.data.colours import grey, match_colours, with_colours_of
from dlcore.data.pictures import PHOTOGRAPHS, read_picture, resized
from dlcore.errors import InputError
from dlcore.launch.fields import LARGEST, choice, integer, path, paths, switch
from dlcore.launch.picture_task import PictureConfig, PictureInfo, PictureTask
from dlcore.launch.style_costs import StyleConfig, StyleCosts, Wanted
from dlcore.train.line_search import line_search_step
from dlcore.types import Activations, Aux, Batch, Mean, Metrics, Params, PyTree, Step, TrainState

# The pairs of differences that L-BFGS remembers.
_MEMORY = 10
_BY_GRADIENT = {"optimizer": optim.OPTIMIZERS}
_WITH_CONTENT = {"texture": (False,)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    PictureConfig,
    StyleConfig,
    steps=100,
    eval_every=25,
    log_every=25,
    learning_rate=0.02,
    average_pool=True,
    variation_weight=1.0,
):
    """The configuration of style transfer.

    The weights suit a network of random weights; activations of a trained one, and so its costs,
    are larger, and need a larger weight of the total variation.
    """

    group_conditions = dict.fromkeys(
        {*launch.OptimizerConfig.defaults()} - {"optimizer", "precision", "skip_spikes"},
        _BY_GRADIENT,
    )

    optimizer: str = choice(
        "lbfgs", ("lbfgs", *optim.OPTIMIZERS), "update rule; lbfgs searches along its direction"
    )
    content: str = path(PHOTOGRAPHS[0], "picture with the content", when=_WITH_CONTENT)
    style: tuple[str, ...] = paths(f"picture with the style; default {PHOTOGRAPHS[1]}")
    texture: bool = switch(False, "make a texture of the style, without a content")
    mask: tuple[str, ...] = paths(
        "picture whose white is where the style of the same place applies; one for each --style"
    )
    start: str | None = choice(
        None,
        ("content", "noise", "style"),
        "picture to start from; default content, of a texture noise",
    )
    style_size: int | None = integer(
        None, 1, 1 << 14, "longer side of the styles in pixels; default --size"
    )
    keep_colours: str | None = choice(
        None,
        ("luminance", "histogram"),
        "keep the content's colours: style its luminance alone, or give the style its colours",
        when=_WITH_CONTENT,
    )
    levels: int = integer(1, 1, 8, "sizes from coarse to fine, each twice the one before")
    level_steps: int = integer(
        50, 1, LARGEST, "steps of each size except the last", when={"levels": lambda n: n > 1}
    )

    def shrunk(self) -> "Config":
        config = super().shrunk()
        if config.levels == 1:
            return config
        # Small pictures can be halved once, and two steps see both sizes.
        return dataclasses.replace(config, levels=2, level_steps=1)


class StyleTransfer(PictureTask[Config, PictureInfo]):
    """A picture that is fitted to the activations of a content and the correlations of styles."""

    metric = ("cost", "min")

    @functools.cached_property
    def style_costs(self) -> StyleCosts:
        """The costs and the layers that they look at."""
        config = self.config
        return StyleCosts.of(config, config.model, lambda: self.layer_names, texture=config.texture)

    @property
    def layers(self) -> tuple[str, ...]:
        return self.style_costs.layers

    def check_layers(self) -> None:
        super().check_layers()
        shapes = self.activation_shapes(*self.smallest_view)
        self.style_costs.check_places(self.config.model, shapes)

    # The pictures.

    def read(self) -> dict[str, np.ndarray]:
        config = self.config
        if config.mask and len(config.mask) != max(1, len(config.style)):
            raise InputError(
                f"there are {len(config.mask)} masks for {max(1, len(config.style))} styles; give "
                "one --mask for each --style"
            )
        if config.texture and config.start == "content":
            raise InputError("--texture has no content to start from; --start=noise or style")
        found = {}
        if not config.texture:
            found["content"] = read_picture(config.content, config.size)
        for index, style in enumerate(config.style or (PHOTOGRAPHS[1],)):
            picture = read_picture(style, config.style_size or config.size)
            if config.keep_colours == "histogram":
                picture = match_colours(picture, found["content"])
            if config.keep_colours == "luminance":
                picture = grey(picture, found["content"])
            found[f"style {index}"] = picture
        shape = next(iter(found.values())).shape
        for index, mask in enumerate(config.mask):
            found[f"mask {index}"] = resized(grey(read_picture(mask)), *shape[:2])
        return found

    def start(self) -> np.ndarray | None:
        config = self.config
        name = config.start or ("noise" if config.texture else "content")
        if name == "noise":
            return None
        if name == "content":
            return self._shown(self.pictures["content"])
        return resized(self.pictures["style 0"], *self.info.shape[:2])

    def _shown(self, content: np.ndarray) -> np.ndarray:
        """Returns the content as it is fitted: grey where its colours are put back at the end."""
        return grey(content) if self.config.keep_colours == "luminance" else content

    def develop(self, picture: np.ndarray) -> np.ndarray:
        if self.config.keep_colours != "luminance":
            return picture
        return with_colours_of(picture, self.pictures["content"])

    # The sizes.

    def view(self, step: int) -> tuple[int, int]:
        config, (height, width, _) = self.config, self.info.shape
        halvings = max(0, config.levels - 1 - step // config.level_steps)
        return max(1, height >> halvings), max(1, width >> halvings)

    @property
    def smallest_view(self) -> tuple[int, int]:
        return self.view(0)

    @functools.cached_property
    def views(self) -> list[tuple[int, int]]:
        """The sizes in which steps see the picture, from coarse to fine."""
        starts = (level * self.config.level_steps for level in range(self.config.levels))
        return list(dict.fromkeys(map(self.view, starts)))

    # The costs.

    def targets(self, model_state: PyTree) -> PyTree:
        return self._targets(model_state, self.pictures)

    def target_shapes(self) -> PyTree:
        # Style matrices are of one size whatever that of their pictures.
        names = [] if self.config.texture else ["content"]
        names += [f"style {index}" for index in range(self.styles)]
        names += [f"mask {index}" for index in range(len(self.config.mask))]
        blank = dict.fromkeys(names, np.zeros(self.info.shape, np.uint8))
        return jax.eval_shape(
            lambda key: self._targets(self.first_network(key), blank), jax.random.key(0)
        )

    @property
    def styles(self) -> int:
        """The number of styles."""
        return max(1, len(self.config.style))

    def _targets(self, model_state: PyTree, pictures: Mapping[str, np.ndarray]) -> PyTree:
        """Returns what activations are compared with, for each size in which a step sees them.

        Activations of the content, and of each style by layer its style matrices [n, N, N] and its
        masks [n, h, w] of the places of the layer.
        """
        found = {}
        for view in self.views:
            part = Wanted(content={}, style={}, masks={})
            if not self.config.texture:
                seen = self._seen(model_state, self._shown(pictures["content"]), view)
                part["content"] = {name: seen[name] for name in self.style_costs.content}
            grams: dict[str, list[jax.Array]] = {name: [] for name in self.style_costs.style}
            for index in range(self.styles):
                style = pictures[f"style {index}"]
                # A style is as much smaller as the picture is.
                size = [
                    max(1, round(side * small / whole))
                    for side, small, whole in zip(style.shape, view, self.info.shape, strict=False)
                ]
                seen = self._seen(model_state, style, size)
                for name, matrix in self.style_costs.style_matrices(seen).items():
                    grams[name].append(matrix)
            part["style"] = {name: jnp.concatenate(each) for name, each in grams.items()}
            masks = [pictures[f"mask {index}"] for index in range(len(self.config.mask))]
            if masks:
                shapes = self.activation_shapes(*view)
                stacked = jnp.stack([jnp.float32(mask[..., 0] / 255) for mask in masks])
                part["masks"] = {
                    name: jax.image.resize(
                        stacked, (len(masks), *shapes[name].shape[1:3]), "linear"
                    )
                    for name in self.style_costs.style
                }
            found[_key(view)] = part
        return found

    def _seen(self, model_state: PyTree, picture: np.ndarray, size: Sequence[int]) -> Activations:
        pixels = resized(picture, *size).astype(np.float32)
        return self.activations(model_state, jnp.asarray(pixels[None] / np.float32(255)))

    def costs(self, params: Params, model_state: PyTree, batch: Batch) -> dict[str, jax.Array]:
        """Returns the parts of the cost of the picture, [1] each, see `StyleCosts.parts`."""
        picture = self.seen(params, batch)
        found = self.activations(model_state, picture)
        wanted = model_state["targets"][_key(batch["view"].shape[1:3])]
        return self.style_costs.parts(picture, found, wanted)

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        total = self.style_costs.summed(self.costs(params, model_state, batch))["cost"]
        return Mean.of(total, batch["weight"]), Aux(model_state, {})

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        costs = self.costs(state.params, state.model_state, batch)
        by_layer = {name: cost for name, cost in costs.items() if name != "variation"}
        summed = self.style_costs.summed(costs)
        return {name: Mean.of(cost) for name, cost in {**summed, **by_layer}.items()}

    # The step.

    def optimizer(self) -> optax.GradientTransformation:
        if self.config.optimizer != "lbfgs":
            return super().optimizer()
        return optax.lbfgs(memory_size=_MEMORY)

    def step(self) -> Step:
        if self.config.optimizer != "lbfgs":
            return super().step()
        return line_search_step(self.loss, optax.lbfgs(memory_size=_MEMORY))


def _key(view: Sequence[int]) -> str:
    return f"{view[0]}x{view[1]}"
