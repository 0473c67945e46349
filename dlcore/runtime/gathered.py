"""Functions of whole parameters, evaluated where each device holds only a part of them.

This is ZeRO's third stage: Rajbhandari et al. 2020, section 5.3, https://arxiv.org/abs/1910.02054.
A function is traced once for whole parameters. Then its equations are evaluated one by one, and the
parameters of a layer are gathered when the layer before begins: while one layer computes, the
parameters of the next are sent, and no third layer is held as a whole. The backward pass gathers in
the same way, in its own order, and cuts gradients into parts as soon as they are known. Barriers
make the compiler keep that order.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

from dlcore.paths import path_of

# A part of an array -> the whole one; linear. None stands for an array that is whole.
Gather = Callable[[jax.Array], jax.Array] | None
# The whole array, summed over the devices -> a part; the transpose of `Gather`.
Cut = Callable[[jax.Array], Any] | None


def value_and_grad(function: Callable[..., Any], gathers: Sequence[Gather]) -> Callable[..., Any]:
    """Returns `jax.value_and_grad` with respect to parts of the first argument, with `has_aux`.

    For its backward pass the function keeps the same values as for `jax.grad`, so that
    rematerialisation inside of it works; but the whole parameters, and their copies in a narrower
    type, are gathered once more instead of being kept.

    Args:
        function: (whole, *rest) -> (value, aux).
        gathers: for each leaf of the parts, the function that makes it whole.

    Returns:
        (parts, *rest) -> ((value, aux), gradient of the parts).
    """

    def run(parts: Any, *rest: Any) -> tuple[tuple[jax.Array, Any], Any]:
        def forward(whole: Any) -> Any:
            return jax.vjp(lambda whole: function(whole, *rest), whole, has_aux=True)

        value, pullback, aux = _call(forward, parts, gathers)
        value, aux = jax.tree.map(_whole, (value, aux))
        kept, rule = jax.tree.flatten(pullback)
        like = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in kept]
        one = jnp.ones_like(value)
        closed = jax.make_jaxpr(lambda kept, one: jax.tree.unflatten(rule, kept)(one))(like, one)
        leaves, structure = jax.tree.flatten(parts)
        cuts = [_transposed(*each) for each in zip(gathers, leaves, strict=True)]
        gradient = _evaluate(closed, [*kept, one], cuts)
        return (value, aux), jax.tree.unflatten(structure, gradient)

    return run


def apply(function: Callable[..., Any], gathers: Sequence[Gather]) -> Callable[..., Any]:
    """Returns the function (whole, *rest) -> results as a function of parts of `whole`."""

    def run(parts: Any, *rest: Any) -> Any:
        return jax.tree.map(_whole, _call(lambda whole: function(whole, *rest), parts, gathers))

    return run


@dataclasses.dataclass(frozen=True)
class _Share:
    """A whole parameter, or its copy in a narrower type, that is gathered only when needed.

    Attributes:
        path: the path of the parameter.
        dtype: the type.
        part: the part of the parameter that the device holds.
        gather: makes the whole parameter.
    """

    path: str
    dtype: Any
    part: jax.Array = dataclasses.field(compare=False)
    gather: Callable[[jax.Array], jax.Array] = dataclasses.field(compare=False)

    @property
    def layer(self) -> str:
        """The path up to the last of its names that ends in a number, or all of it.

        >>> _Share("body/layer_3/attention/query/kernel", None, None, None).layer
        'body/layer_3'
        """
        numbered = re.match(r".*\d(?=/|$)", self.path)
        return numbered[0] if numbered else self.path

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole parameter."""
        return _shape(self.gather, self.part).shape

    def whole(self, part: jax.Array) -> jax.Array:
        """Gathers the share from the part; the narrower type moves fewer bytes."""
        return self.gather(part.astype(self.dtype))


def _call(function: Callable[[Any], Any], parts: Any, gathers: Sequence[Gather]) -> Any:
    """Returns the results of a function of whole parameters, with their copies as `_Share`s."""
    leaves, structure = jax.tree.flatten(parts)
    shapes = [_shape(*each) for each in zip(gathers, leaves, strict=True)]
    closed, results = jax.make_jaxpr(function, return_shape=True)(
        jax.tree.unflatten(structure, shapes)
    )
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(parts)]
    arguments = [
        leaf if gather is None else _Share(path, leaf.dtype, leaf, gather)
        for gather, leaf, path in zip(gathers, leaves, paths, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(results), _evaluate(closed, arguments))


def _shape(gather: Gather, part: jax.Array) -> jax.ShapeDtypeStruct:
    whole = part if gather is None else jax.eval_shape(gather, part)
    return jax.ShapeDtypeStruct(whole.shape, whole.dtype)


def _transposed(gather: Gather, part: jax.Array) -> Cut:
    return None if gather is None else lambda whole: jax.linear_transpose(gather, part)(whole)[0]


def _whole(leaf: Any) -> Any:
    return leaf.whole(leaf.part) if isinstance(leaf, _Share) else leaf


def _evaluate(
    closed: ClosedJaxpr,
    arguments: Sequence[Any],
    cuts: Sequence[Cut] = (),
) -> list[Any]:
    """Evaluates a program, and gathers the parameters of each layer when the one before begins.

    Args:
        closed: the program.
        arguments: the arguments of the program; parameters that are to be gathered are `_Share`s.
        cuts: the function that cuts a part out of each result, as soon as the result is known and
            before more is gathered; None, or no cuts at all, for results that stay whole.

    Returns:
        The results; those that are copies of parameters are `_Share`s.
    """
    jaxpr = closed.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    shares = {var: value for var, value in values.items() if isinstance(value, _Share)}
    eqns = [eqn for eqn in jaxpr.eqns if not _narrows(eqn, shares)]
    layers = _layers(eqns, shares)
    turn = {var: number for number, layer in enumerate(layers) for var in layer}
    to_cut: dict[Any, list[tuple[int, Callable[[jax.Array], Any]]]] = {}
    for number, (atom, cut) in enumerate(zip(jaxpr.outvars, cuts, strict=bool(cuts))):
        if cut is not None and isinstance(atom, Var):
            to_cut.setdefault(atom, []).append((number, cut))
    parts: dict[int, Any] = {}
    of_parameters = set(turn)  # what follows from parameters alone
    begun, count, new = -1, 0, list[int]()  # the layer, those gathered, the parts since then
    for eqn in eqns:
        inputs = [atom for atom in eqn.invars if isinstance(atom, Var)]
        begun = max([begun, *(turn[var] for var in inputs if var in turn)])
        data = [var for var in dict.fromkeys(inputs) if var not in of_parameters]
        mixed = bool(data) and not of_parameters.isdisjoint(inputs)
        for layer in layers[count : begun + (2 if mixed else 1)]:
            # What the layer that begins reads, and the parts of gradients of those that have ended.
            awaited = [*(values[var] for var in data), *(parts[number] for number in new)]
            whole, found = _gathered(layer, awaited)
            values.update(whole)
            values.update(zip(data, found[: len(data)], strict=True))
            parts.update(zip(new, found[len(data) :], strict=True))
            count, new = count + 1, []
        values.update(zip(eqn.outvars, _run(jaxpr, eqn, inputs, values), strict=True))
        for var in eqn.outvars:
            for number, cut in to_cut.get(var, ()):
                parts[number] = cut(values[var])
                new.append(number)
        if inputs and not data:
            of_parameters.update(eqn.outvars)
    results: list[Any] = [
        atom.val if isinstance(atom, Literal) else shares.get(atom, values.get(atom))
        for atom in jaxpr.outvars
    ]
    for number, cut in enumerate(cuts):
        if cut is not None:
            results[number] = parts[number] if number in parts else cut(results[number])
    return results


def _narrows(eqn: JaxprEqn, shares: dict[Any, _Share]) -> bool:
    """Returns whether the equation only copies a share in a narrower type, which is a share too."""
    if eqn.primitive is not jax.lax.convert_element_type_p or isinstance(eqn.invars[0], Literal):
        return False
    share, dtype = shares.get(eqn.invars[0]), eqn.params["new_dtype"]
    if share is None or dtype.itemsize > share.dtype.itemsize:
        return False
    shares[eqn.outvars[0]] = dataclasses.replace(share, dtype=dtype)
    return True


def _layers(eqns: Sequence[JaxprEqn], shares: dict[Any, _Share]) -> list[dict[Any, _Share]]:
    """Returns the shares of each layer, in the order in which the layers begin."""
    layers: dict[str, dict[Any, _Share]] = {}
    for var in (atom for eqn in eqns for atom in eqn.invars if isinstance(atom, Var)):
        if var in shares:
            layers.setdefault(shares[var].layer, {})[var] = shares[var]
    return list(layers.values())


def _gathered(
    layer: dict[Any, _Share], awaited: Sequence[jax.Array]
) -> tuple[dict[Any, jax.Array], Sequence[jax.Array]]:
    """Gathers the parameters of a layer once other values are known.

    Returns:
        The whole parameters, and the other values. Code that reads these values must take them from
        here: XLA does not wait for values that pass a barrier unread.
    """
    different = list(dict.fromkeys(layer.values()))
    parts = [share.part for share in different]
    parts, awaited = jax.lax.optimization_barrier((parts, awaited))
    whole = {share: share.whole(part) for share, part in zip(different, parts, strict=True)}
    return {var: whole[share] for var, share in layer.items()}, awaited


def _run(jaxpr: Jaxpr, eqn: JaxprEqn, inputs: Sequence[Var], values: dict[Any, Any]) -> list[Any]:
    """Returns the results of one equation."""
    inputs = list(dict.fromkeys(inputs))
    one = jaxpr.replace(
        constvars=[], invars=inputs, outvars=eqn.outvars, eqns=[eqn], effects=eqn.effects
    )
    return jaxpr_as_fun(ClosedJaxpr(one, ()))(*[values[var] for var in inputs])
