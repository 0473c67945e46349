"""The gradient of a function of whole parameters where each device holds a part of them.

ZeRO's third stage: Rajbhandari et al. 2020, section 5.3, https://arxiv.org/abs/1910.02054.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Var, jaxpr_as_fun


def value_and_grad(
    function: Callable[..., Any], gather: Callable[[Any], Any]
) -> Callable[..., Any]:
    """`jax.value_and_grad` by parts of the first argument, with `has_aux`.

    For its backward pass the function keeps what it would keep for `jax.grad`, so that
    rematerialisation inside of it has its effect; only the whole parameters, and their copies in
    another precision, are not kept but gathered once more.

    Args:
        function: (whole, *rest) -> (value, aux).
        gather: parts -> whole; linear.

    Returns:
        (parts, *rest) -> ((value, aux), gradient of the parts).
    """

    def run(parts: Any, *rest: Any) -> tuple[tuple[jax.Array, Any], Any]:
        def forward(whole: Any) -> Any:
            return jax.vjp(lambda whole: function(whole, *rest), whole, has_aux=True)

        whole, cut = jax.vjp(gather, parts)
        closed, shapes = jax.make_jaxpr(forward, return_shape=True)(whole)
        found = jaxpr_as_fun(closed)(*jax.tree.leaves(whole))
        value, _, aux = jax.tree.unflatten(jax.tree.structure(shapes), found)
        # Only when the value is there, or the compiler would find both gathers to be one.
        again = jax.tree.leaves(gather(jax.lax.optimization_barrier((parts, value))[0]))
        kept = [
            one if at is None else again[at].astype(one.dtype)
            for one, at in zip(found, _copied(closed.jaxpr), strict=True)
        ]
        _, pullback, _ = jax.tree.unflatten(jax.tree.structure(shapes), kept)
        return (value, aux), cut(*pullback(jnp.ones_like(value)))[0]

    return run


def _copied(jaxpr: Jaxpr) -> list[int | None]:
    """Returns for each output the number of the input that it copies, in whatever precision."""
    origins: dict[Any, int | None] = {var: number for number, var in enumerate(jaxpr.invars)}

    def origin(atom: Any) -> int | None:
        return origins.get(atom) if isinstance(atom, Var) else None  # else a literal

    for eqn in jaxpr.eqns:
        if eqn.primitive is jax.lax.convert_element_type_p:
            origins[eqn.outvars[0]] = origin(eqn.invars[0])
    return [origin(atom) for atom in jaxpr.outvars]
