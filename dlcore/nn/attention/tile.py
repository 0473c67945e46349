"""Scores, softmax and gradients of one tile of attention, some queries by some keys.

Full attention is one tile, chunked attention many tiles. The axis of heads comes before time, so
that every product is a batch of matrix products; a group's heads share one matrix. The axis of keys
comes before queries, so that sums over the keys run along the processor's vector lanes. Both
together save a tenth of the time of a small model's attention on the CPU.

Shapes: B batch, Q queries, K keys, H heads, G groups of heads that share a key and a value head,
R = H / G heads of a group, D features of a query, E of a value. `1|B` is 1, to broadcast, or B.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dlcore.types import at_least_float32


class View(NamedTuple):
    """The keys that queries see, and the distances between them.

    Attributes:
        mask: bool [1|B, 1|G, 1|K, 1|R, 1|Q], true where a query may attend; None for everywhere.
        slopes: the slopes of ALiBi, [1, G, 1, R, 1], or None.
        positions: the index of each query among the keys, int [1|B, Q].
    """

    mask: jax.Array | None
    slopes: jax.Array | None
    positions: jax.Array


def arrange(
    query: jax.Array,
    key: jax.Array,
    *,
    mask: jax.Array | None,
    slopes: jax.typing.ArrayLike | None,
    positions: jax.Array | None,
) -> tuple[jax.Array, jax.Array, View]:
    """Rearranges the arguments of `attention_weights` to [B, G, R, Q, D], [B, G, K, D] and a view.

    Raises:
        ValueError: for shapes that do not fit each other.
    """
    if query.ndim != 4 or key.ndim != 4:
        raise ValueError(f"query {query.shape} and key {key.shape} must be [B, time, heads, D]")
    batch, queries, heads, features = query.shape
    keys, groups = key.shape[1:3]
    if (batch, features) != (key.shape[0], key.shape[3]) or heads % groups:
        raise ValueError(
            f"query {query.shape} and key {key.shape}: batch and features must be equal, and the "
            "heads of the key must divide those of the query"
        )
    shared = heads // groups
    if mask is not None:
        full = (batch, heads, queries, keys)
        if mask.ndim != 4 or any(n not in (1, m) for n, m in zip(mask.shape, full, strict=True)):
            raise ValueError(f"mask {mask.shape} does not broadcast to [B, H, Q, K] = {full}")
        split = (groups, shared) if mask.shape[1] > 1 else (1, 1)
        mask = mask.reshape(mask.shape[0], *split, *mask.shape[2:]).transpose(0, 1, 4, 2, 3)
    if slopes is not None:
        slopes = jnp.asarray(slopes)
        if slopes.shape != (heads,):
            raise ValueError(f"slopes {slopes.shape} must be one for each of {heads} heads")
        slopes = lax.stop_gradient(slopes).reshape(1, groups, 1, shared, 1)
    if positions is None:
        positions = jnp.arange(keys - queries, keys)
    if positions.shape not in ((queries,), (batch, queries)):
        raise ValueError(f"positions {positions.shape} must be ({queries},) or {(batch, queries)}")
    query = query.reshape(batch, queries, groups, shared, features).transpose(0, 2, 3, 1, 4)
    return query, key.swapaxes(1, 2), View(mask, slopes, positions.reshape(-1, queries))


def arrange_value(value: jax.Array, key: jax.Array) -> jax.Array:
    """Rearranges the value [B, K, G, E] to [B, G, K, E].

    Raises:
        ValueError: when the value does not fit the key [B, K, G, D].
    """
    if value.ndim != 4 or value.shape[:3] != key.shape[:3]:
        raise ValueError(f"value {value.shape} and key {key.shape} differ in more than features")
    return value.swapaxes(1, 2)


def restore(out: jax.Array) -> jax.Array:
    """Rearranges the output [B, G, R, Q, E] to [B, Q, H, E], as in the public functions."""
    batch, groups, shared, queries, features = out.shape
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, queries, groups * shared, features)


def scores(
    query: jax.Array,
    key: jax.Array,
    view: View,
    *,
    causal: bool,
    scale: float,
    first_key: jax.Array | int = 0,
) -> jax.Array:
    """Returns the scores [B, G, K, R, Q], float32 at least, -inf where a query may not attend.

    Args:
        query: [B, G, R, Q, D].
        key: [B, G, K, D].
        view: the view of these queries on these keys.
        causal: whether a query sees only keys up to its own position.
        scale: the factor of the products.
        first_key: the index of the first of these keys among all keys.
    """
    dtype = at_least_float32(query.dtype)
    products = _product("bgkd,bgnd->bgkn", key, _rows(query), dtype)
    result = scale * products.reshape(*key.shape[:3], *query.shape[2:4])
    key_positions = first_key + jnp.arange(key.shape[2])
    distance = (view.positions[:, None] - key_positions[None, :, None])[:, None, :, None]
    mask = view.mask
    if view.slopes is not None:
        result -= view.slopes.astype(dtype) * jnp.abs(distance).astype(dtype)
    if causal:
        mask = distance >= 0 if mask is None else mask & (distance >= 0)
    return result if mask is None else jnp.where(mask, result, -jnp.inf)


def softmax(scores: jax.Array) -> jax.Array:
    """Returns exp(score) / sum over the keys, [B, G, K, R, Q], 0 for a query without any key."""
    top = finite(scores.max(2, keepdims=True))
    exponentials = jnp.exp(scores - lax.stop_gradient(top))
    return exponentials / positive(exponentials.sum(2, keepdims=True))


def finite(top: jax.Array) -> jax.Array:
    """Replaces the maximum -inf of queries without any key by 0, so that -inf - top stays -inf."""
    return jnp.where(top == -jnp.inf, 0, top)


def positive(total: jax.Array) -> jax.Array:
    """Replaces the sum 0 of queries without any key by 1, so that it can divide zeros."""
    return jnp.where(total == 0, 1, total)


def weighted_sum(weights: jax.Array, value: jax.Array) -> jax.Array:
    """Sums the values [B, G, K, E] with the weights [B, G, K, R, Q] to [B, G, R, Q, E]."""
    batch, groups, _, *queries = weights.shape
    out = _product("bgkn,bgke->bgne", _columns(weights), value, weights.dtype)
    return out.reshape(batch, groups, *queries, value.shape[-1])


def gradients(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    weights: jax.Array,
    g: jax.Array,
    inner: jax.Array,
    *,
    scale: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradients of query, key and value, float32 at least.

    Automatic differentiation would compute the weights' gradient in the other order of axes and
    transpose it.

    Args:
        query: [B, G, R, Q, D].
        key: [B, G, K, D].
        value: [B, G, K, E].
        weights: [B, G, K, R, Q].
        g: the gradient of the output, [B, G, R, Q, E].
        inner: output . g, [B, G, R, Q], which is the sum over the keys of all tiles of each weight
            times its gradient (Dao et al. 2022, eq. 4).
        scale: the factor of the products.
    """
    dtype, shape = weights.dtype, query.shape
    query, g, weights = _rows(query), _rows(g), _columns(weights)
    to_value = _product("bgkn,bgne->bgke", weights, g, dtype)
    to_weights = _product("bgke,bgne->bgkn", value, g, dtype)
    to_scores = scale * weights * (to_weights - inner.reshape(*shape[:2], 1, -1))
    to_query = _product("bgkn,bgkd->bgnd", to_scores, key, dtype).reshape(shape)
    return to_query, _product("bgkn,bgnd->bgkd", to_scores, query, dtype), to_value


def _rows(x: jax.Array) -> jax.Array:
    """Reshapes [B, G, R, Q, *] to [B, G, R * Q, *]: products are slower over more axes."""
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def _columns(x: jax.Array) -> jax.Array:
    """Reshapes [B, G, K, R, Q] to [B, G, K, R * Q]."""
    return x.reshape(*x.shape[:3], -1)


def _product(axes: str, x: jax.Array, y: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Multiplies in the type of y and sums in `dtype`."""
    return jnp.einsum(axes, x.astype(y.dtype), y, preferred_element_type=dtype)
