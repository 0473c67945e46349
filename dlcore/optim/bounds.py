"""Bounds of single parameters, such as of a temperature that is learned."""

import jax
import jax.numpy as jnp
import optax

from dlcore.paths import Rules, match
from dlcore.types import Params


def bound_above(rules: Rules[float]) -> optax.GradientTransformation:
    """Returns a transformation, the last of a chain, that keeps parameters at most at a bound.

    Args:
        rules: the bounds; a parameter that no rule matches has none.

    Raises:
        InputError: (on init) when a rule matches no path.

    >>> tx = optax.chain(optax.sgd(1.0), bound_above([("scale", 2.0)]))
    >>> params = {"scale": jnp.array(1.5), "kernel": jnp.array(1.5)}
    >>> updates, _ = tx.update(jax.tree.map(lambda _: -3.0, params), tx.init(params), params)
    >>> {name: float(value) for name, value in optax.apply_updates(params, updates).items()}
    {'kernel': 4.5, 'scale': 2.0}
    """

    def init(params: Params) -> optax.EmptyState:
        match(params, rules, jnp.inf)
        return optax.EmptyState()

    def update(
        updates: Params, state: optax.EmptyState, params: Params
    ) -> tuple[Params, optax.EmptyState]:
        bounded = jax.tree.map(
            lambda update, param, bound: jnp.minimum(
                update, jnp.asarray(bound, param.dtype) - param
            ),
            updates,
            params,
            match(params, rules, jnp.inf),
        )
        return bounded, state

    return optax.GradientTransformation(init, update)
