"""Gradients of one magnitude, whatever the magnitude of the loss."""

import jax
import jax.numpy as jnp
import optax

from dlcore.types import Params


def divide_by_mean_magnitude() -> optax.GradientTransformation:
    """Divides the gradient of each leaf by the mean of its absolute values.

    A learning rate is then the mean change of a value in a step, whichever layer a picture should
    excite (Mordvintsev et al. 2015, in their published program). A gradient of 0 stays 0.

    >>> tx = divide_by_mean_magnitude()
    >>> tx.update({"a": jnp.array([1.0, -3.0]), "b": jnp.zeros(2)}, tx.init(None))[0]["a"].tolist()
    [0.5, -1.5]
    """

    def divide(gradient: jax.Array) -> jax.Array:
        mean = jnp.abs(gradient).mean()
        # Where all is 0, or so small that its inverse is infinite.
        return gradient / jnp.maximum(mean, jnp.finfo(gradient.dtype).tiny)

    def update(
        updates: Params, state: optax.EmptyState, params: Params | None = None
    ) -> tuple[Params, optax.EmptyState]:
        del params
        return jax.tree.map(divide, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
