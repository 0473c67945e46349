"""Style transfer: a picture with the content of one picture and the style of others.

By default a photograph of a temple in the style of one of a flower, both scikit-learn's, seen by a
network of random weights, which needs neither a file nor a network. `--content` and `--style` take
pictures, `--init_from` the weights of a network that was trained. `--texture` makes a texture of
the styles alone. Several `--style`, each with its `--mask`, are each for the white of their mask.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore import launch, optim
from dlcore.data.colours import grey, match_colours, with_colours_of
from dlcore.data.pictures import PHOTOGRAPHS, read_picture, resized
from dlcore.errors import InputError
from dlcore.launch.fields import (
    LARGEST,
    LARGEST_NUMBER,
    choice,
    integer,
    names,
    number,
    path,
    paths,
    switch,
)
from dlcore.launch.picture_task import PictureConfig, PictureInfo, PictureTask
from dlcore.losses import CONTENT_COSTS, gram_matrix, style_cost, total_variation
from dlcore.train.line_search import line_search_step
from dlcore.types import Activations, Aux, Batch, Mean, Metrics, Params, PyTree, Step, TrainState

# The pairs of differences that L-BFGS remembers.
_MEMORY = 10
_BY_GRADIENT = {"optimizer": optim.OPTIMIZERS}
_WITH_CONTENT = {"texture": (False,)}
# Layers of a network that is not named here: see `default_layers`.
_STYLE_LAYERS = {
    "squeezenet": ("conv1", "fire2", "fire4", "fire6", "fire7"),
    "vgg": ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"),
}
_CONTENT_LAYERS = {"squeezenet": ("fire4",), "vgg": ("conv4_2",)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(PictureConfig, steps=100, eval_every=25, log_every=25, learning_rate=0.02):
    """The configuration of style transfer."""

    group_conditions = dict.fromkeys(
        {*launch.OptimizerConfig.defaults()} - {"optimizer", "precision", "skip_spikes"},
        _BY_GRADIENT,
    )

    optimizer: str = choice(
        "lbfgs", ("lbfgs", *optim.OPTIMIZERS), "update rule; lbfgs searches along its direction"
    )
    content: str = path(PHOTOGRAPHS[0], "picture that is shown", when=_WITH_CONTENT)
    style: tuple[str, ...] = paths(f"picture whose style it gets; default {PHOTOGRAPHS[1]}")
    texture: bool = switch(False, "make a texture of the style, without a content")
    mask: tuple[str, ...] = paths(
        "picture whose white is where the style of the same place applies; one for each --style"
    )
    start: str | None = choice(
        None,
        ("content", "noise", "style"),
        "picture to start from; default content, of a texture noise",
    )
    content_layers: tuple[str, ...] = names(
        "layers of the content cost, NAME or NAME:WEIGHT", when=_WITH_CONTENT
    )
    style_layers: tuple[str, ...] = names("layers of the style cost, NAME or NAME:WEIGHT")
    content_cost: str = choice(
        "ng", CONTENT_COSTS, "scaling of the content cost", when=_WITH_CONTENT
    )
    content_weight: float = number(
        1.0, 0, LARGEST_NUMBER, "weight of the content cost", when=_WITH_CONTENT
    )
    style_weight: float = number(100.0, 0, LARGEST_NUMBER, "weight of the style cost")
    variation_weight: float = number(0.0, 0, LARGEST_NUMBER, "weight of the total variation")
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
        50, 1, LARGEST, "steps of each size but the last", when={"levels": lambda n: n > 1}
    )


class StyleTransfer(PictureTask[Config, PictureInfo]):
    """A picture that is fitted to the activations of a content and the correlations of styles."""

    metric = ("cost", "min")

    # The layers.

    @functools.cached_property
    def style_weights(self) -> dict[str, float]:
        """The weight of each layer of the style cost."""
        return _weights("style_layers", self.config.style_layers or self._default(_STYLE_LAYERS))

    @functools.cached_property
    def content_weights(self) -> dict[str, float]:
        """The weight of each layer of the content cost."""
        if self.config.texture:
            return {}
        layers = self.config.content_layers or self._default(_CONTENT_LAYERS)
        return _weights("content_layers", layers)

    def _default(self, known: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        for family, layers in known.items():
            if self.config.model.startswith(family):
                return layers
        flag = "style_layers" if known is _STYLE_LAYERS else "content_layers"
        raise InputError(
            f"give the layers of {self.config.model} by --{flag}; it has: "
            f"{', '.join(self.layer_names)}"
        )

    @property
    def layers(self) -> tuple[str, ...]:
        return (*self.style_weights, *self.content_weights)

    def check_layers(self) -> None:
        super().check_layers()
        for name, shape in self.activation_shapes(*self.smallest_view).items():
            if len(shape.shape) != 4:
                raise InputError(
                    f"the layer {name} of {self.config.model} has no places, whose channels go "
                    "together in a style; choose layers before it"
                )

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
            part: dict[str, Any] = {"content": {}, "style": {}, "masks": {}}
            if not self.config.texture:
                seen = self._seen(model_state, self._shown(pictures["content"]), view)
                part["content"] = {name: seen[name] for name in self.content_weights}
            grams: dict[str, list[jax.Array]] = {name: [] for name in self.style_weights}
            for index in range(self.styles):
                style = pictures[f"style {index}"]
                # A style is as much smaller as the picture is.
                size = [
                    max(1, round(side * small / whole))
                    for side, small, whole in zip(style.shape, view, self.info.shape, strict=False)
                ]
                seen = self._seen(model_state, style, size)
                for name, matrices in grams.items():
                    matrices.append(gram_matrix(seen[name]))
            part["style"] = {name: jnp.concatenate(each) for name, each in grams.items()}
            masks = [pictures[f"mask {index}"] for index in range(len(self.config.mask))]
            if masks:
                shapes = self.activation_shapes(*view)
                stacked = jnp.stack([jnp.float32(mask[..., 0] / 255) for mask in masks])
                part["masks"] = {
                    name: jax.image.resize(
                        stacked, (len(masks), *shapes[name].shape[1:3]), "linear"
                    )
                    for name in self.style_weights
                }
            found[_key(view)] = part
        return found

    def _seen(self, model_state: PyTree, picture: np.ndarray, size: Sequence[int]) -> Activations:
        pixels = resized(picture, *size).astype(np.float32)
        return self.activations(model_state, jnp.asarray(pixels[None] / np.float32(255)))

    def costs(self, params: Params, model_state: PyTree, batch: Batch) -> dict[str, jax.Array]:
        """Returns the parts of the cost: content and style by layer, and total variation.

        The weights of the layers are in them, those of the three kinds are not.
        """
        picture = self.seen(params, batch)
        found = self.activations(model_state, picture)
        wanted = model_state["targets"][_key(batch["view"].shape[1:3])]
        costs = {"variation": total_variation(picture)[0]}
        content_cost = CONTENT_COSTS[self.config.content_cost]
        for name, weight in self.content_weights.items():
            cost = content_cost(found[name], wanted["content"][name])[0]
            costs[f"content_{name}"] = weight * cost
        for name, weight in self.style_weights.items():
            masks = wanted["masks"].get(name, [None])
            grams = jnp.concatenate([gram_matrix(found[name], mask) for mask in masks])
            # Several styles share evenly.
            costs[f"style_{name}"] = weight * style_cost(grams, wanted["style"][name]).mean()
        return costs

    def _summed(self, costs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Returns the whole cost, and its three kinds without their weights."""
        kinds: dict[str, jax.Array] = {}
        for name, cost in costs.items():
            kind = name.partition("_")[0]
            kinds[kind] = kinds.get(kind, jnp.zeros((), cost.dtype)) + cost
        config = self.config
        weights = {
            "content": config.content_weight,
            "style": config.style_weight,
            "variation": config.variation_weight,
        }
        total = jnp.zeros((), costs["variation"].dtype)
        for kind, cost in kinds.items():
            total = total + weights[kind] * cost
        return {"cost": total, **{f"{kind}_cost": cost for kind, cost in kinds.items()}}

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        total = self._summed(self.costs(params, model_state, batch))["cost"]
        return Mean.of(total[None], batch["weight"]), Aux(model_state, {})

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        costs = self.costs(state.params, state.model_state, batch)
        by_layer = {name: cost for name, cost in costs.items() if name != "variation"}
        return {
            name: Mean.of(cost[None]) for name, cost in {**self._summed(costs), **by_layer}.items()
        }

    # The step.

    def optimizer(self) -> optax.GradientTransformation:
        if self.config.optimizer != "lbfgs":
            return super().optimizer()
        return optax.lbfgs(memory_size=_MEMORY)

    def step(self) -> Step:
        if self.config.optimizer != "lbfgs":
            return super().step()
        return line_search_step(self.loss, optax.lbfgs(memory_size=_MEMORY))


def _weights(flag: str, given: Sequence[str]) -> dict[str, float]:
    """Returns the weight of each layer of NAME:WEIGHT; NAME alone weighs 1 / number of layers.

    Raises:
        InputError: for a weight that is none, and a layer that is there twice.
    """
    found: dict[str, float] = {}
    for item in given:
        name, colon, text = item.partition(":")
        try:
            weight = float(text) if colon else 1 / len(given)
        except ValueError:
            weight = np.nan
        if not name or not 0 <= weight < np.inf:
            raise InputError(
                f"--{flag}: {item} is not NAME or NAME:WEIGHT with a weight of 0 or more; write "
                "something like conv1:1,fire4:0.5"
            )
        if name in found:
            raise InputError(f"--{flag} names {name} twice; name each layer once")
        found[name] = weight
    return found


def _key(view: Sequence[int]) -> str:
    return f"{view[0]}x{view[1]}"
