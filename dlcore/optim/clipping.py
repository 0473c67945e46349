"""Kinds of gradient clipping, each of which reports the share that it clipped.

They limit the value of each element, the norm of all gradients together (Pascanu et al. 2013), the
norm of each leaf alone, or the norm of each unit's gradient relative to the norm of its weights
(Brock et al. 2021). All kinds keep the bits of gradients within the threshold, never scale up, and
hide no failure: a gradient that is not finite stays so, and a norm that is not finite turns all
gradients that it would scale into NaN.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import KeyPath

from dlcore.errors import InputError
from dlcore.optim.reports import Reported
from dlcore.optim.units import unit_axes
from dlcore.types import Params


def clip_by_value(threshold: float) -> optax.GradientTransformation:
    """Limits each element to [-threshold, threshold]; reports the share of elements as "clipped".

    Raises:
        InputError: when the threshold is not positive.

    >>> tx = clip_by_value(1.0)
    >>> clipped, state = tx.update(jnp.array([0.5, -3.0]), tx.init(None))
    >>> clipped.tolist(), float(state.values["clipped"])
    ([0.5, -1.0], 0.5)
    """

    def clip(updates: Params, params: Params) -> tuple[Params, jax.Array]:
        def cap(u: jax.Array) -> jax.Array:
            # Not jnp.clip, which on the CPU turns subnormal numbers into 0.
            too_large = jnp.isfinite(u) & (jnp.abs(u) > threshold)
            return jnp.where(too_large, jnp.copysign(threshold, u), u)

        clipped = jax.tree.map(cap, updates)
        outside = [(~(jnp.abs(u) <= threshold)).sum() for u in jax.tree.leaves(updates)]
        return clipped, sum(outside) / optax.tree.size(updates)

    return _clipping(clip, threshold)


def clip_by_global_norm(threshold: float) -> optax.GradientTransformation:
    """Scales all gradients by threshold / norm when their common L2 norm exceeds the threshold.

    Pascanu et al. 2013, algorithm 1. Reports 0 or 1 as "clipped".

    Raises:
        InputError: when the threshold is not positive.

    >>> tx = clip_by_global_norm(1.0)
    >>> clipped, state = tx.update([jnp.array(3.0), jnp.array(4.0)], tx.init(None))
    >>> [round(float(update), 3) for update in clipped], float(state.values["clipped"])
    ([0.6, 0.8], 1.0)
    """

    def clip(updates: Params, params: Params) -> tuple[Params, jax.Array]:
        norm = optax.tree.norm(updates)
        limited = jax.tree.map(lambda u: _limit(u, norm, threshold), updates)
        return limited, ~(norm <= threshold)

    return _clipping(clip, threshold)


def clip_by_leaf_norm(threshold: float) -> optax.GradientTransformation:
    """Scales each leaf by threshold / norm when its own L2 norm exceeds the threshold.

    Reports the share of leaves as "clipped".

    Raises:
        InputError: when the threshold is not positive.
    """

    def clip(updates: Params, params: Params) -> tuple[Params, jax.Array]:
        norms = jax.tree.map(optax.tree.norm, updates)
        limited = jax.tree.map(lambda u, norm: _limit(u, norm, threshold), updates, norms)
        return limited, jnp.mean(~(jnp.stack(jax.tree.leaves(norms)) <= threshold))

    return _clipping(clip, threshold)


def clip_adaptively(share: float, *, least_norm: float = 1e-3) -> optax.GradientTransformation:
    """Limits the gradient's norm of each unit to `share` times the norm of the unit's weights.

    Brock et al. 2021 (NFNets), equation 3: g becomes share * max(|w|, least_norm) * g / |g| where
    |g| exceeds share * max(|w|, least_norm), by L2 norms over a unit, see `units.unit_axes`. The
    paper takes 0.01 for large batches, up to 0.16 for small ones, and leaves the last layer alone.
    Reports the share of units as "clipped".

    Args:
        share: the largest ratio of a gradient's norm to the norm of its weights.
        least_norm: a lower bound for the norm of weights, so that weights that start at 0 can move.

    Raises:
        InputError: when the share is not positive.

    >>> tx = clip_adaptively(0.5)
    >>> kernel, gradient = jnp.array([[3.0, 1.0], [4.0, 0.0]]), jnp.array([[1.0, 2.0], [2.0, 0.0]])
    >>> clipped, state = tx.update({"kernel": gradient}, tx.init(None), {"kernel": kernel})
    >>> clipped["kernel"].tolist(), float(state.values["clipped"])
    ([[1.0, 0.5], [2.0, 0.0]], 0.5)
    """

    def clip(updates: Params, params: Params) -> tuple[Params, jax.Array]:
        def norm(path: KeyPath, leaf: jax.Array) -> jax.Array:
            return jnp.sqrt(jnp.square(leaf).sum(unit_axes(path, leaf), keepdims=True))

        norms, lengths = (
            jax.tree_util.tree_map_with_path(norm, tree) for tree in (updates, params)
        )
        longest = jax.tree.map(lambda length: share * jnp.maximum(length, least_norm), lengths)
        limited = jax.tree.map(_limit, updates, norms, longest)
        within = jax.tree.map(lambda norm, most: (norm <= most).sum(), norms, longest)
        count = optax.tree.size(norms)
        return limited, (count - sum(jax.tree.leaves(within))) / count

    return _clipping(clip, share)


def _limit(update: jax.Array, norm: jax.Array, threshold: float | jax.Array) -> jax.Array:
    # An infinite norm would turn the finite elements into zeros, and the step would look healthy.
    factor = jnp.where(jnp.isfinite(norm), threshold / norm, jnp.nan)
    return jnp.where(norm <= threshold, update, update * factor.astype(update.dtype))


def _clipping(
    clip: Callable[[Params, Params], tuple[Params, jax.Array]], threshold: float
) -> optax.GradientTransformation:
    """Makes a transformation of `clip`; its state is the share that `clip` returns second."""
    if not (math.isfinite(threshold) and threshold > 0):
        raise InputError(f"clipping threshold {threshold} is not positive; give a number > 0")

    def init(params: Params) -> Reported:
        del params
        return Reported.nothing_yet("clipped")

    def update(updates: Params, state: Reported, params: Params = None) -> tuple[Params, Reported]:
        del state
        clipped, share = clip(updates, params)
        return clipped, Reported({"clipped": jnp.asarray(share, float)})

    return optax.GradientTransformation(init, update)
