"""The costs of style transfer that jobs share: their flags, the layers they look at, their sum.

Shapes: B pictures, h w their height and width; N channels of a layer, n styles.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import InputError
from dlcore.launch.config import Group
from dlcore.launch.fields import LARGEST_NUMBER, choice, names, number
from dlcore.losses import CONTENT_COSTS, gram_matrix, style_cost, total_variation
from dlcore.types import Activations

_WITH_CONTENT = {"texture": (False,)}
# The layers by family of networks: for styles those of Gatys et al. 2016 in a VGG, and in other
# networks such as stand where those do.
_STYLE_LAYERS = {
    "squeezenet": ("conv1", "fire2", "fire4", "fire6", "fire7"),
    "vgg": ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"),
}
_CONTENT_LAYERS = {"squeezenet": ("fire4",), "vgg": ("conv4_2",)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleConfig(Group):
    """The options of the costs that give a picture a style."""

    title = "Costs"

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


class Wanted(TypedDict):
    """The targets of the activations of pictures, by layer.

    Attributes:
        content: (B, h, w, N), activations of the contents; empty for a texture.
        style: (n, N, N), the style matrices of the styles.
        masks: (n, h, w), the positions in the layer where each style applies; empty where each
            style applies everywhere.
    """

    content: Activations
    style: dict[str, jax.Array]
    masks: dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class StyleCosts:
    """The costs of pictures by layer, and their sum.

    Attributes:
        content: the weight of each layer of the content cost.
        style: the weight of each layer of the style cost.
        content_cost: the scaling of the content cost, a name of `CONTENT_COSTS`.
        kinds: the weights of "content", "style" and "variation" in the sum.
    """

    content: Mapping[str, float]
    style: Mapping[str, float]
    content_cost: str
    kinds: Mapping[str, float]

    @classmethod
    def of(
        cls,
        config: StyleConfig,
        model: str,
        layer_names: Callable[[], Sequence[str]],
        *,
        texture: bool = False,
    ) -> "StyleCosts":
        """Returns the costs that a configuration describes.

        Args:
            config: the flags; where they name no layers, those of the model's family are taken.
            model: the name of the network.
            layer_names: returns the layers that the network has, for an error.
            texture: whether there is no content.

        Raises:
            InputError: for layers that are missing or given twice, and for invalid weights.
        """
        given = {"style_layers": config.style_layers, "content_layers": config.content_layers}
        weights: dict[str, dict[str, float]] = {"content_layers": {}}
        for flag, known in (("style_layers", _STYLE_LAYERS), ("content_layers", _CONTENT_LAYERS)):
            if texture and flag == "content_layers":
                continue
            of_family = (known[family] for family in known if model.startswith(family))
            layers = given[flag] or next(of_family, ())
            if not layers:
                raise InputError(
                    f"give the layers of {model} by --{flag}; it has: {', '.join(layer_names())}"
                )
            weights[flag] = layer_weights(flag, layers)
        kinds = {
            "content": config.content_weight,
            "style": config.style_weight,
            "variation": config.variation_weight,
        }
        return cls(weights["content_layers"], weights["style_layers"], config.content_cost, kinds)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that the costs look at."""
        return (*self.style, *self.content)

    def check_places(self, model: str, shapes: Activations) -> None:
        """Checks that the layers have positions, since a style matrix is a mean over them.

        Args:
            model: the name of the network.
            shapes: the shapes of the layers' activations.

        Raises:
            InputError: for a layer that has no positions.
        """
        for name in self.layers:
            if len(shapes[name].shape) != 4:
                raise InputError(
                    f"the layer {name} of {model} has no positions at which a style could compare "
                    "channels; "
                    "choose layers before it"
                )

    def style_matrices(self, activations: Activations) -> dict[str, jax.Array]:
        """Returns the style matrices of the layers of the style cost, (B, N, N) each."""
        return {name: gram_matrix(activations[name]) for name in self.style}

    def parts(
        self, pictures: jax.Array, found: Activations, wanted: Wanted
    ) -> dict[str, jax.Array]:
        """Returns the parts of the cost: content and style by layer, and total variation, (B,).

        They are called "content_LAYER", "style_LAYER" and "variation". They include the weights of
        the layers, but not those of the three kinds. Several styles have equal shares.

        Args:
            pictures: (B, H, W, C) of 0 to 1.
            found: the activations of the pictures.
            wanted: the targets of these activations.
        """
        costs = {"variation": total_variation(pictures)}
        content_cost = CONTENT_COSTS[self.content_cost]
        for name, weight in self.content.items():
            costs[f"content_{name}"] = weight * content_cost(found[name], wanted["content"][name])
        for name, weight in self.style.items():
            grams = wanted["style"][name]
            masks = wanted["masks"].get(name, [None] * len(grams))
            of_styles = [
                style_cost(gram_matrix(found[name], mask), gram[None])
                for gram, mask in zip(grams, masks, strict=True)
            ]
            costs[f"style_{name}"] = weight * jnp.stack(of_styles).mean(0)
        return costs

    def summed(self, parts: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Returns the whole "cost", and its kinds without their weights, such as "style_cost"."""
        kinds: dict[str, jax.Array] = {}
        for name, cost in parts.items():
            kind = name.partition("_")[0]
            kinds[kind] = kinds[kind] + cost if kind in kinds else cost
        total = jnp.zeros_like(parts["variation"])
        for kind, cost in kinds.items():
            total = total + self.kinds[kind] * cost
        return {"cost": total, **{f"{kind}_cost": cost for kind, cost in kinds.items()}}


def layer_weights(flag: str, given: Sequence[str]) -> dict[str, float]:
    """Returns the weights of layers NAME:WEIGHT; NAME alone has weight 1 / number of layers.

    Args:
        flag: the name of the flag, for errors.
        given: the values of the flag.

    Raises:
        InputError: for an invalid weight, and for a layer that is given twice.

    >>> layer_weights("style_layers", ["conv1", "fire2:3"])
    {'conv1': 0.5, 'fire2': 3.0}
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
