"""The exponential moving average of the weights, which the optimizer's state holds."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlcore.errors import InputError
from dlcore.types import Params, PyTree


class Average(NamedTuple):
    """The average of the parameters that an optimizer trains, which is a part of its state.

    Attributes:
        steps: the number of steps taken.
        params: the average.
    """

    steps: jax.Array
    params: Params


def average_weights(decay: float) -> optax.GradientTransformation:
    """Updates average = decay * average + (1 - decay) * weights at each step (Polyak averaging).

    The transformation must come last in a chain, because it treats the updates as the final change
    of the weights; it passes them on unchanged. After n steps the decay is at most
    (1 + n) / (10 + n), as in TensorFlow, so that a short run does not keep its random start.

    Args:
        decay: the decay of the average, which reaches back about 1 / (1 - decay) steps.

    Raises:
        InputError: when the decay is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise InputError(f"an average with decay {decay} never learns; give one in [0, 1)")

    def init(params: Params) -> Average:
        return Average(jnp.zeros((), jnp.int32), jax.tree.map(jnp.array, params))

    def update(updates: Params, state: Average, params: Params = None) -> tuple[Params, Average]:
        now = jnp.minimum(decay, (1 + state.steps) / (10 + state.steps))
        new = optax.apply_updates(params, updates)
        average = jax.tree.map(
            lambda old, value: (old + (1 - now) * (value - old)).astype(old.dtype),
            state.params,
            new,
        )
        return updates, Average(optax.safe_increment(state.steps), average)

    return optax.GradientTransformation(init, update)


def averaged(opt_state: PyTree, params: Params) -> Params:
    """Returns the average in `opt_state`, or `params` if there is none; frozen ones stay the same.

    >>> tx = average_weights(0.5)
    >>> state = tx.init({"w": jnp.array(0.0)})
    >>> _, state = tx.update({"w": jnp.array(1.0)}, state, {"w": jnp.array(0.0)})
    >>> round(float(averaged(state, {"w": jnp.array(1.0)})["w"]), 3)  # the first decay is 1 / 10
    0.9
    """
    states = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, Average))
    averages = [state for state in states if isinstance(state, Average)]
    if not averages:
        return params
    return jax.tree.map(
        lambda value, average: value if isinstance(average, optax.MaskedNode) else average,
        params,
        averages[0].params,
    )


def start_average(opt_state: PyTree, params: Params) -> PyTree:
    """Returns `opt_state` with its average, if there is one, starting at `params`."""

    def place(old: jax.Array, value: jax.Array) -> jax.Array:
        # A copy: the step donates both.
        return jax.device_put(jnp.array(value), old.sharding)

    def leaf_of(node: PyTree) -> PyTree:
        if not isinstance(node, Average):
            return node
        average = jax.tree.map(
            lambda old, value: old if isinstance(old, optax.MaskedNode) else place(old, value),
            node.params,
            params,
            is_leaf=lambda old: isinstance(old, optax.MaskedNode),
        )
        return node._replace(params=average)

    return jax.tree.map(leaf_of, opt_state, is_leaf=lambda node: isinstance(node, Average))
