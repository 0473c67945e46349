"""The exponential moving average of the weights, kept beside the optimizer's own state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlcore.errors import InputError


class Average(NamedTuple):
    """A part of an optimizer's state: the average of the parameters that it trains.

    Attributes:
        steps: how many steps are in it.
        params: the average.
    """

    steps: jax.Array
    params: Any


def average_weights(decay: float) -> optax.GradientTransformation:
    """Follows the weights by average = decay * average + (1 - decay) * weights (Polyak averaging).

    It stands last in a chain, where updates are what is added to the weights, and passes them on.
    In the first steps the decay is (1 + n) / (10 + n) of the n steps taken, as in TensorFlow's
    implementation, so that a short run does not keep its random start.

    Args:
        decay: of the average; its memory is about 1 / (1 - decay) steps.

    Raises:
        InputError: when the decay is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise InputError(f"an average with decay {decay} never learns; give one in [0, 1)")

    def init(params: Any) -> Average:
        return Average(jnp.zeros((), jnp.int32), jax.tree.map(jnp.array, params))

    def update(updates: Any, state: Average, params: Any = None) -> tuple[Any, Average]:
        now = jnp.minimum(decay, (1 + state.steps) / (10 + state.steps))
        new = optax.apply_updates(params, updates)
        average = jax.tree.map(
            lambda old, value: (old + (1 - now) * (value - old)).astype(old.dtype),
            state.params,
            new,
        )
        return updates, Average(optax.safe_increment(state.steps), average)

    return optax.GradientTransformation(init, update)


def averaged(opt_state: Any, params: Any) -> Any:
    """The average that `opt_state` holds, with frozen parameters as they are; else `params`."""
    states = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, Average))
    found = [state for state in states if isinstance(state, Average)]
    if not found:
        return params
    return jax.tree.map(
        lambda value, average: value if isinstance(average, optax.MaskedNode) else average,
        params,
        found[0].params,
    )
