"""Folds batch normalisation into the layers before it, for prediction.

In evaluation batch normalisation is an affine map of each channel. Where it follows a convolution
or a dense layer and nothing else reads that layer, one layer with a scaled kernel and a shift gives
the same outputs (Jacob et al. 2018, section 3.2).
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core

from dlcore.nn.convolution import Conv, ConvTranspose
from dlcore.nn.normalisation import BatchNorm
from dlcore.types import Variables

Path = tuple[str, ...]
_LAYERS = (Conv, ConvTranspose, nn.Dense)
# What marks layers and norms in a traced model.
_LAYER, _NORM = "folding layer ", "folding norm "


class Forward(Protocol):
    """A call of a model in evaluation mode: (variables, inputs) -> outputs."""

    def __call__(self, variables: Variables, inputs: jax.Array, /) -> Any: ...


class Folded(NamedTuple):
    """A model whose batch normalisation is folded.

    Attributes:
        variables: the variables of the model, to be applied under `folded_norms`: the kernels are
            scaled, and a folded norm keeps only its bias.
        norms: the paths of the norms that are folded.
        kept: the paths of the norms that are not folded, because they follow no layer, or a layer
            that something else reads too.
    """

    variables: Variables
    norms: tuple[str, ...]
    kept: tuple[str, ...]


def fold_batch_norm(forward: Forward, variables: Variables, inputs: Any) -> Folded:
    """Folds batch normalisation into the convolutions and dense layers that it follows directly.

    Blocks whose parameters are stacked are folded together.

    Args:
        forward: calls the model and returns the outputs that are to stay the same; layers that only
            other outputs read may be folded.
        variables: the variables of the model.
        inputs: some inputs, or their shape and type.
    """
    norms = _trace(forward, variables, inputs)
    flat = traverse_util.flatten_dict(variables)
    for norm, (layer, epsilon) in norms.items():
        if layer is None:
            continue
        scale, shift, mean, variance = (
            jnp.asarray(flat[(collection, *norm, name)], jnp.float32)
            for collection, name in (
                ("params", "scale"),
                ("params", "bias"),
                ("batch_stats", "mean"),
                ("batch_stats", "var"),
            )
        )
        factor = scale * jax.lax.rsqrt(variance + epsilon)
        for name in ("kernel", "bias"):
            path = ("params", *layer, name)
            if path in flat:
                # Stacked blocks have a leading axis more.
                axes = range(factor.ndim - 1, flat[path].ndim - 1)
                flat[path] = flat[path] * jnp.expand_dims(factor, [*axes])
        del flat[("params", *norm, "scale")]
        flat[("params", *norm, "bias")] = shift - mean * factor
    names = {norm: "/".join(norm) for norm in norms}
    return Folded(
        traverse_util.unflatten_dict(flat),
        tuple(names[norm] for norm, (layer, _) in norms.items() if layer is not None),
        tuple(names[norm] for norm, (layer, _) in norms.items() if layer is None),
    )


@contextlib.contextmanager
def folded_norms() -> Iterator[None]:
    """Makes a model work with the variables of `fold_batch_norm`, when applied or traced inside."""

    def call(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        folded = (
            isinstance(module, BatchNorm)
            and context.method_name == "__call__"
            and not module.has_variable("params", "scale")
        )
        if not folded:
            return next_call(*args, **kwargs)
        x, bias = args[0], module.get_variable("params", "bias")
        return x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + bias.shape)

    with nn.intercept_methods(call):
        yield


def _trace(
    forward: Forward, variables: Variables, inputs: Any
) -> dict[Path, tuple[Path | None, float]]:
    """Returns the epsilon of each norm by path, and the layer it can be folded into, if any.

    Blocks of stacked parameters run as separate modules inside of another module, under their name
    (see `models.cnn.residual.Stage`), perhaps several times; their paths begin with the path of the
    module around them.
    """
    # Of each call in progress: the variables that its module's path is in (a root scope), where
    # these lie in those of the whole model, and the whole path of the module.
    calls: list[tuple[Any, Path, Path]] = []
    epsilons: dict[Path, float] = {}

    def call(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__":
            return next_call(*args, **kwargs)
        root = module.scope.root
        place: Path = ()
        if calls:
            place = calls[-1][1] if root is calls[-1][0] else (*calls[-1][2], str(module.name))
        path = (*place, *module.path)
        if isinstance(module, BatchNorm):
            epsilons[path] = module.epsilon
            args = (checkpoint_name(args[0], _NORM + "/".join(path)), *args[1:])
        calls.append((root, place, path))
        try:
            result = next_call(*args, **kwargs)
        finally:
            calls.pop()
        if isinstance(module, _LAYERS):
            return checkpoint_name(result, _LAYER + "/".join(path))
        return result

    # Not `forward` itself, of which JAX may have kept a trace without marks.
    with nn.intercept_methods(call):
        traced = jax.make_jaxpr(lambda variables, inputs: forward(variables, inputs))(
            variables, inputs
        )
    readers: dict[str, set[str]] = {}
    _read(traced.jaxpr, readers)
    found: dict[Path, tuple[Path | None, float]] = {}
    for path, epsilon in epsilons.items():
        norm = "/".join(path)
        before = [layer for layer, of in readers.items() if norm in of]
        only = len(before) == 1 and before[0] != "" and readers[before[0]] == {norm}
        found[path] = (tuple(before[0].split("/")) if only else None, epsilon)
    return found


def _read(jaxpr: Any, readers: dict[str, set[str]]) -> None:
    """Records the readers of each layer's output: the names of norms, and "" for anything else.

    The layer "" has the norms whose input is not the output of a layer.
    """
    layers, norms = {}, {}
    uses: dict[Any, list[str]] = {}
    for equation in jaxpr.eqns:
        mark = equation.params.get("name", "") if equation.primitive.name == "name" else ""
        if mark.startswith(_LAYER):
            layers[equation.outvars[0]] = mark.removeprefix(_LAYER)
        reader = mark.removeprefix(_NORM) if mark.startswith(_NORM) else ""
        if reader:
            norms[reader] = equation.invars[0]
        for variable in equation.invars:
            if not isinstance(variable, core.Literal):
                uses.setdefault(variable, []).append(reader)
        for inner in core.jaxprs_in_params(equation.params):
            _read(inner, readers)
    for variable in jaxpr.outvars:
        if not isinstance(variable, core.Literal):
            uses.setdefault(variable, []).append("")
    for variable, layer in layers.items():
        readers.setdefault(layer, set()).update(uses.get(variable, [""]))
    for norm, variable in norms.items():
        readers.setdefault(layers.get(variable, ""), set()).add(norm)
