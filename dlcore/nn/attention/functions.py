"""Attention as pure functions (Vaswani et al. 2017, section 3.2).

Shapes: B batch, Q queries, K keys, H heads, G heads of keys and values (divides H: grouped queries,
Ainslie et al. 2023; query head h looks at head h // (H / G)), D features of a query, E of a value.
"""

import functools

import jax

from dlcore.nn.attention import tile
from dlcore.nn.attention.chunked import chunked_attention


def attention_weights(
    query: jax.Array,
    key: jax.Array,
    *,
    mask: jax.Array | None = None,
    slopes: jax.typing.ArrayLike | None = None,
    positions: jax.Array | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> jax.Array:
    """Returns the softmax over the keys of scale * query . key, [B, H, Q, K], float32 at least.

    The weight of a masked key is exactly 0, and so is its gradient. A query that may attend to no
    key has weights 0.

    Args:
        query: [B, Q, H, D].
        key: [B, K, G, D].
        mask: bool [B, H, Q, K] or of size 1 in some of these axes; true where a query may attend.
        slopes: [H], constants: the scores get -slope * |query's position - key's position| added
            (ALiBi, Press et al. 2022; see `positions.alibi_slopes`).
        positions: the index of each query among the keys, int [Q] or [B, Q]. By default the queries
            are the last Q keys.
        causal: whether a query sees only the keys up to its own position.
        scale: the factor of the scores, by default 1 / sqrt(D).

    Raises:
        ValueError: for shapes that do not fit each other.

    >>> x = jax.numpy.zeros((1, 2, 1, 4))
    >>> attention_weights(x, x, causal=True)[0, 0].tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    """
    shape = query.shape[0], query.shape[2], query.shape[1], key.shape[1]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    query, key, view = tile.arrange(query, key, mask=mask, slopes=slopes, positions=positions)
    weights = tile.softmax(tile.scores(query, key, view, causal=causal, scale=scale))
    return weights.transpose(0, 1, 3, 4, 2).reshape(shape)


def weighted_sum(weights: jax.Array, value: jax.Array) -> jax.Array:
    """Sums the values [B, K, G, E] with the weights [B, H, Q, K] to [B, Q, H, E].

    With `attention_weights` it makes up `attention`, for callers that use or change the weights.
    """
    batch, heads, queries, keys = weights.shape
    grouped = weights.reshape(batch, value.shape[2], -1, queries, keys).transpose(0, 1, 4, 2, 3)
    return tile.restore(tile.weighted_sum(grouped, value.swapaxes(1, 2))).astype(value.dtype)


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array | None = None,
    slopes: jax.typing.ArrayLike | None = None,
    positions: jax.Array | None = None,
    causal: bool = False,
    scale: float | None = None,
    chunk: int | None = None,
) -> jax.Array:
    """Returns the mean of the values, weighted by `attention_weights`, [B, Q, H, E].

    Store keys and values that every step of decoding uses again as [B, G, K, D] and pass
    `cache.swapaxes(1, 2)`: the products read them in that order, and a step of one query then takes
    a quarter of the time. Differentiable in reverse mode only.

    Args:
        query: [B, Q, H, D].
        key: [B, K, G, D].
        value: [B, K, G, E].
        mask: see `attention_weights` for this and the following arguments.
        slopes: [H].
        positions: int [Q] or [B, Q].
        causal: see there.
        scale: see there.
        chunk: the number of queries and keys in one tile of `chunked_attention`, whose memory is
            linear in their number; None computes all scores at once.

    Raises:
        InputError: when the chunk is not positive.
        ValueError: for shapes that do not fit each other.

    >>> query = key = jax.numpy.zeros((1, 2, 1, 4))
    >>> value = jax.numpy.array([1.0, 3.0]).reshape(1, 2, 1, 1)
    >>> attention(query, key, value, causal=True)[0, :, 0, 0].tolist()
    [1.0, 2.0]
    """
    if chunk is not None:
        return chunked_attention(
            query,
            key,
            value,
            mask=mask,
            slopes=slopes,
            positions=positions,
            causal=causal,
            scale=scale,
            chunk=chunk,
        )
    # JAX's own function gives queries without any key the mean of all values, aligns causal queries
    # with the first keys and needs E = D. Accelerators use it where none of this matters.
    plain = mask is None and slopes is None and positions is None and key.shape == value.shape
    if plain and jax.default_backend() != "cpu" and (not causal or query.shape[1] == key.shape[1]):
        return jax.nn.dot_product_attention(query, key, value, is_causal=causal, scale=scale)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    value = tile.arrange_value(value, key)
    query, key, view = tile.arrange(query, key, mask=mask, slopes=slopes, positions=positions)
    return tile.restore(_attention(query, key, value, view, causal, scale))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(
    query: jax.Array, key: jax.Array, value: jax.Array, view: tile.View, causal: bool, scale: float
) -> jax.Array:
    return _forward(query, key, value, view, causal, scale)[0]


def _forward(
    query: jax.Array, key: jax.Array, value: jax.Array, view: tile.View, causal: bool, scale: float
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    weights = tile.softmax(tile.scores(query, key, view, causal=causal, scale=scale))
    out = tile.weighted_sum(weights, value).astype(value.dtype)
    return out, (query, key, value, weights, out)


def _backward(
    causal: bool, scale: float, saved: tuple[jax.Array, ...], g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    query, key, value, weights, out = saved
    inner = (out.astype(weights.dtype) * g.astype(weights.dtype)).sum(-1)
    to_query, to_key, to_value = tile.gradients(query, key, value, weights, g, inner, scale=scale)
    return (
        to_query.astype(query.dtype),
        to_key.astype(key.dtype),
        to_value.astype(value.dtype),
        None,
    )


_attention.defvjp(_forward, _backward)
