"""Objectives of activations, which deep dream and feature visualisation maximise.

Mordvintsev et al. 2015 (Inceptionism) and Olah et al. 2017 (Feature Visualization). Each returns
one number for each picture, float32 at least.

Shapes: B pictures, P positions, `...` the axes of positions, usually H W, C channels, K classes.
"""

import jax
import jax.numpy as jnp

from dlcore.types import at_least_float32

_PLACES = 4096  # that are compared with a guide at once


def layer_objective(activations: jax.Array) -> jax.Array:
    """Returns the mean square of the activations (B, ..., C) of a layer, (B,).

    Its gradient with respect to the activations is proportional to them: the layer is to see more
    of what it already sees.

    >>> layer_objective(jnp.array([[1.0, 3.0]])).tolist()
    [5.0]
    """
    return jnp.square(_wide(activations)).reshape(len(activations), -1).mean(-1)


def channel_objective(activations: jax.Array, channel: int) -> jax.Array:
    """Returns the mean of one channel of (B, ..., C) over all positions, (B,).

    >>> channel_objective(jnp.array([[[1.0, 3.0], [5.0, 7.0]]]), 1).tolist()
    [5.0]
    """
    return _wide(activations)[..., channel].reshape(len(activations), -1).mean(-1)


def neuron_objective(activations: jax.Array, channel: int) -> jax.Array:
    """Returns one channel of (B, ..., C) at the middle position, (B,).

    The middle position along an axis of size N is N // 2. A class is a neuron of the logits (B, K).

    >>> neuron_objective(jnp.arange(18.0).reshape(1, 3, 3, 2), 1).tolist()
    [9.0]
    """
    middle = tuple(size // 2 for size in activations.shape[1:-1])
    return _wide(activations)[(slice(None), *middle, channel)]


def guided_objective(activations: jax.Array, guide: jax.Array) -> jax.Array:
    """Returns the mean inner product with the best match in a guide at each position, (B,).

    At each position this takes the inner product of the vector of channels with the vector of the
    guide for which it is the largest. So the gradient there is the guide's vector, as in the
    program that Mordvintsev et al. published.

    Args:
        activations: (B, ..., C), the activations of the pictures.
        guide: (P, C), the vectors of the same layer at all positions of the guide.

    >>> guided_objective(jnp.array([[[1.0, 0.0]]]), jnp.array([[2.0, 9.0], [3.0, 0.0]])).tolist()
    [3.0]
    """
    places = _wide(activations).reshape(-1, activations.shape[-1])
    vectors = guide.astype(places.dtype)

    # All products at once would take gigabytes in the first layers of a network.
    @jax.checkpoint
    def best(place: jax.Array) -> jax.Array:
        return (vectors @ place).max()

    found = jax.lax.map(best, places, batch_size=_PLACES)
    return found.reshape(len(activations), -1).mean(-1)


def _wide(activations: jax.Array) -> jax.Array:
    return activations.astype(at_least_float32(activations.dtype))
