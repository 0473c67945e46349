"""The body of a detector: an image classifier without its head.

It can be any of `IMAGE_MODELS`. The body has only the classifier's parameters on which the wanted
maps depend, by their own names, so that `--init_from` can take them from a classifier. Shapes: B
batch, H W image, C channels of the image; h w, F height, width and channels of a map.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

from dlcore.errors import InputError
from dlcore.models import image_spec
from dlcore.models.cnn.darknet import ConvUnit
from dlcore.nn import space_to_depth
from dlcore.types import Activations, PyTree, Variables

# The name of the module in a detector, under which its parameters lie.
BODY = "body"


class FeatureMap(NamedTuple):
    """A map of features inside of a classifier.

    Attributes:
        name: the name of the activation.
        stride: the pixels of the image per cell of the map, as the nearest power of 2.
        shape: the shape (h, w, F).
    """

    name: str
    stride: int
    shape: tuple[int, int, int]


class Body(nn.Module):
    """The part of a classifier that leads to some of its activations.

    Attributes:
        build: makes the classifier; takes no argument.
        layers: the names of the activations.
    """

    build: Callable[[], nn.Module]
    layers: tuple[str, ...]

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False
    ) -> tuple[tuple[jax.Array, ...], Activations]:
        """Maps images (B, H, W, C) to the wanted maps (B, h, w, F), and all activations by name."""
        network = self.build()
        abstract = _abstract(network, x)
        needed = _needed(network, self.layers, abstract, x)

        @functools.cache
        def initial() -> Variables:
            return network.init(self.make_rng("params"), x)

        for collection, name in dict.fromkeys((path[0], path[1]) for path in needed):
            self.variable(
                collection,
                name,
                lambda c, n: _only(initial()[c][n], (c, n), needed),
                collection,
                name,
            )
        # The head runs on zeros; nothing reads it, so that the compiler leaves it out.
        whole = _filled(abstract, self.variables, x.dtype)
        state = [name for name in whole if name != "params" and self.is_mutable_collection(name)]
        rngs = {"dropout": self.make_rng("dropout")} if self.has_rng("dropout") else {}
        found: Any = network.apply(whole, x, train, rngs=rngs, mutable=state)
        (_, activations), new = found
        if not self.is_initializing():
            for collection, variables in new.items():
                for name in self.variables.get(collection, {}):
                    kept = _only(variables[name], (collection, name), needed)
                    self.put_variable(collection, name, kept)
        # What lies behind the last map is none of the body's.
        last = max([*activations].index(name) for name in self.layers)
        activations = dict([*activations.items()][: last + 1])
        return tuple(activations[name] for name in self.layers), activations


def passthrough(maps: tuple[jax.Array, ...], filters: int, train: bool) -> jax.Array:
    """Joins a finer map to the coarse one (Redmon & Farhadi 2017, section 2).

    A 1x1 convolution brings the finer map to `filters` channels, and its four cells that make up
    one cell of the coarse map become channels of that cell. Call this in a compact module.

    Args:
        maps: the coarse map (B, h, w, F), preceded by a map of half its stride if there are
            filters.
        filters: the number of filters, 64 in the authors' program; 0 for the coarse map alone.
        train: whether this is training.

    Returns:
        (B, h, w, 4 filters + F).
    """
    if not filters:
        return maps[-1]
    fine, coarse = maps
    fine = ConvUnit(filters, 1, name="passthrough")(fine, train)
    # A pool leaves out the last row of an odd number.
    fine = space_to_depth(fine, 2)[:, : coarse.shape[1], : coarse.shape[2]]
    return jnp.concatenate([fine, coarse], -1)


def make_body(
    name: str, strides: tuple[int, ...], image_shape: tuple[int, int, int], **options: Any
) -> tuple[Body, tuple[FeatureMap, ...]]:
    """Returns the body of an image model, and the last map of each stride.

    Args:
        name: a name in `IMAGE_MODELS`.
        strides: the wanted strides, powers of 2.
        image_shape: the shape (H, W, C) of the images.
        options: the options of the model.

    Raises:
        InputError: for an unknown model, or one without a map of a wanted stride.
    """
    build = functools.partial(image_spec(name).build, num_classes=1, **options)
    maps = feature_maps(build(), image_shape)
    chosen = []
    for stride in strides:
        of_stride = [found for found in maps if found.stride == stride]
        if not of_stride:
            possible = ", ".join(str(s) for s in sorted({found.stride for found in maps}))
            height, width, _ = image_shape
            raise InputError(
                f"{name} has no map of stride {stride} for images of {height}x{width}; "
                + (f"it has maps of stride {possible}" if maps else "choose a convolutional net")
            )
        chosen.append(of_stride[-1])
    return Body(build, tuple(found.name for found in chosen), name=BODY), tuple(chosen)


def feature_maps(network: nn.Module, image_shape: tuple[int, int, int]) -> list[FeatureMap]:
    """Returns the maps of a classifier with more than one cell, in order of execution."""
    found: list[FeatureMap] = []
    height, width, _ = image_shape

    def trace(images: jax.Array) -> None:
        # Within a trace the activations are in order of execution; trees sort them.
        (_, activations), _ = network.init_with_output(jax.random.key(0), images)
        for name, value in activations.items():
            if value.ndim == 4 and min(value.shape[1:3]) > 1:
                stride = max(height / value.shape[1], width / value.shape[2])
                found.append(FeatureMap(name, 2 ** round(math.log2(stride)), value.shape[1:]))

    jax.eval_shape(trace, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    return found


def _abstract(network: nn.Module, x: jax.Array) -> Variables:
    """Returns the shapes of the variables of the whole classifier."""
    return jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct(x.shape, x.dtype))


def _needed(
    network: nn.Module, layers: tuple[str, ...], variables: Variables, x: jax.Array
) -> set[tuple[str, ...]]:
    """Returns the paths of variables that activations depend on, such as ("params", "conv1")."""

    def wanted(variables: Variables, x: jax.Array) -> list[jax.Array]:
        activations = network.apply(variables, x)[1]
        return [activations[name] for name in layers]

    image = jax.ShapeDtypeStruct(x.shape, x.dtype)
    jaxpr = jax.make_jaxpr(wanted)(variables, image).jaxpr
    live = {atom for atom in jaxpr.outvars if isinstance(atom, core.Var)}
    for equation in reversed(jaxpr.eqns):
        if live & set(equation.outvars):
            live |= {atom for atom in equation.invars if isinstance(atom, core.Var)}
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(variables)]
    return {
        tuple(key.key for key in path)
        for path, atom in zip(paths, jaxpr.invars, strict=False)
        if atom in live
    }


def _only(tree: PyTree, prefix: tuple[str, ...], needed: set[tuple[str, ...]]) -> PyTree:
    """Returns the leaves of a tree whose paths, after a prefix, are needed."""
    if not isinstance(tree, dict):
        return tree
    parts = {name: _only(value, (*prefix, name), needed) for name, value in tree.items()}
    return {
        name: value
        for name, value in parts.items()
        if (*prefix, name) in needed or (isinstance(value, dict) and value)
    }


def _filled(abstract: PyTree, own: PyTree, dtype: Any) -> PyTree:
    """Returns the variables of the whole classifier: the given ones, and zeros for the others."""
    if not isinstance(abstract, dict):
        return jnp.zeros(abstract.shape, dtype) if own is None else own
    own = own or {}
    return {name: _filled(value, own.get(name), dtype) for name, value in abstract.items()}
