"""Attention whose memory is linear in the number of queries and of keys.

A loop visits tiles of queries by keys and corrects the softmax on the way (Milakov & Gimelshein
2018; Rabe & Staats 2021). The gradient recomputes every tile from the output and the logarithm of
the softmax's divisor (Dao et al. 2022, algorithm 4).

Shapes: B batch, Q queries, K keys, H heads, G groups, R heads of a group, D features of a query,
E of a value; q queries and k keys of one tile.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dlcore.errors import InputError
from dlcore.nn.attention import tile
from dlcore.types import at_least_float32

# Running totals over the tiles visited so far.
Sums = tuple[jax.Array, ...]
# Query, key, value, view, output and log sum exp(score), saved for the backward pass.
Residuals = tuple[jax.Array, jax.Array, jax.Array, tile.View, jax.Array, jax.Array]


class Plan(NamedTuple):
    """The sizes and options that are fixed when the program is compiled.

    Attributes:
        queries: q.
        keys: k.
        causal: whether a query sees only keys up to its own position.
        scale: the factor of the scores.
    """

    queries: int
    keys: int
    causal: bool
    scale: float


def chunked_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    chunk: int,
    mask: jax.Array | None = None,
    slopes: jax.typing.ArrayLike | None = None,
    positions: jax.Array | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> jax.Array:
    """Computes `functions.attention`, [B, Q, H, E], in tiles of `chunk` queries and keys.

    It makes no array of size Q * K, unless the mask is one. With `causal` it skips tiles that lie
    in the future of all their queries. Differentiable in reverse mode only.

    Args:
        query: [B, Q, H, D].
        key: [B, K, G, D].
        value: [B, K, G, E].
        chunk: the number of queries, and of keys, in one tile; it need not divide Q or K.
        mask: see `functions.attention_weights` for this and the following arguments.
        slopes: [H].
        positions: int [Q] or [B, Q].
        causal: see there.
        scale: see there.

    Raises:
        InputError: when the chunk is not positive.
        ValueError: for shapes that do not fit each other.
    """
    if chunk < 1:
        raise InputError(f"attention in chunks of {chunk} is impossible; choose at least 1")
    queries, keys = query.shape[1], key.shape[1]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    plan = Plan(min(chunk, queries), min(chunk, keys), causal, scale)
    value = tile.arrange_value(value, key)
    query, key, view = tile.arrange(query, key, mask=mask, slopes=slopes, positions=positions)
    mask = view.mask
    if keys % plan.keys:
        # No query sees the padding of the last tile.
        real = jnp.ones((1, 1, keys, 1, 1), bool)
        mask = real if mask is None else mask & real
    if mask is not None:
        mask = _pad_to_multiple(_pad_to_multiple(mask, plan.queries, 4), plan.keys, 2)
    view = view._replace(mask=mask, positions=_pad_to_multiple(view.positions, plan.queries, 1))
    query = _pad_to_multiple(query, plan.queries, 3)
    key, value = (_pad_to_multiple(x, plan.keys, 2) for x in (key, value))
    return tile.restore(_chunked(query, key, value, view, plan))[:, :queries]


def _pad_to_multiple(x: jax.Array, size: int, axis: int) -> jax.Array:
    """Pads an axis with zeros to a multiple of `size`, unless it has size 1 and broadcasts."""
    more = 0 if x.shape[axis] == 1 else -x.shape[axis] % size
    return jnp.pad(x, [(0, more if n == axis else 0) for n in range(x.ndim)])


def _slice(x: jax.Array, index: jax.Array, size: int, axis: int) -> jax.Array:
    """Returns the tile with an index along an axis, unless the axis has size 1 and broadcasts."""
    return x if x.shape[axis] == 1 else lax.dynamic_slice_in_dim(x, index * size, size, axis)


def _concatenate(tiles: jax.Array, axis: int) -> jax.Array:
    """Concatenates the tiles [N, ...] along an axis of each."""
    shape = list(tiles.shape[1:])
    shape[axis] *= tiles.shape[0]
    return jnp.moveaxis(tiles, 0, axis).reshape(shape)


def _slice_view(view: tile.View, row: jax.Array, column: jax.Array, plan: Plan) -> tile.View:
    """Returns the view that the queries of one tile have of its keys."""
    mask = view.mask
    if mask is not None:
        mask = _slice(_slice(mask, row, plan.queries, 4), column, plan.keys, 2)
    return tile.View(mask, view.slopes, _slice(view.positions, row, plan.queries, 1))


def _visit(
    view: tile.View, first_key: jax.Array, plan: Plan, add: Callable[[Sums], Sums], sums: Sums
) -> Sums:
    """Returns add(sums), or just sums where all keys lie in the future of all queries."""
    if not plan.causal:
        return add(sums)
    return lax.cond(view.positions.max() >= first_key, add, lambda sums: sums, sums)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _chunked(
    query: jax.Array, key: jax.Array, value: jax.Array, view: tile.View, plan: Plan
) -> jax.Array:
    return _forward(query, key, value, view, plan)[0]


def _forward(
    query: jax.Array, key: jax.Array, value: jax.Array, view: tile.View, plan: Plan
) -> tuple[jax.Array, Residuals]:
    """Computes the output [B, G, R, Q, E] and saves log sum exp(score) [B, G, R, Q] with it."""
    dtype = at_least_float32(query.dtype)

    def row_of_tiles(row: jax.Array) -> tuple[jax.Array, jax.Array]:
        queries = _slice(query, row, plan.queries, 3)

        def visit(sums: Sums, column: jax.Array) -> tuple[Sums, None]:
            seen, first_key = _slice_view(view, row, column, plan), column * plan.keys

            def add(sums: Sums) -> Sums:
                top, total, out = sums
                keys, values = (_slice(x, column, plan.keys, 2) for x in (key, value))
                scores = tile.scores(
                    queries, keys, seen, causal=plan.causal, scale=plan.scale, first_key=first_key
                )
                higher = jnp.maximum(top, scores.max(2))
                # All sums are relative to the greatest score so far and shrink when it grows.
                shift = tile.finite(higher)
                weights, shrink = jnp.exp(scores - shift[:, :, None]), jnp.exp(top - shift)
                out = out * shrink[..., None] + tile.weighted_sum(weights, values)
                return higher, total * shrink + weights.sum(2), out

            return _visit(seen, first_key, plan, add, sums), None

        shape = queries.shape[:4]
        out = jnp.zeros((*shape, value.shape[-1]), dtype)
        sums: Sums = jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, dtype), out
        sums, _ = lax.scan(visit, sums, jnp.arange(key.shape[2] // plan.keys))
        top, total, out = sums
        total = tile.positive(total)
        return (out / total[..., None]).astype(value.dtype), tile.finite(top) + jnp.log(total)

    rows = lax.map(row_of_tiles, jnp.arange(query.shape[3] // plan.queries))
    out, logs = (_concatenate(x, 3) for x in rows)
    return out, (query, key, value, view, out, logs)


def _backward(
    plan: Plan, residuals: Residuals, g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    query, key, value, view, out, logs = residuals
    inner = (out.astype(logs.dtype) * g.astype(logs.dtype)).sum(-1)

    def column_of_tiles(to_queries: jax.Array, column: jax.Array) -> tuple[jax.Array, Sums]:
        first_key = column * plan.keys
        keys, values = (_slice(x, column, plan.keys, 2) for x in (key, value))

        def visit(sums: Sums, now: tuple[jax.Array, jax.Array]) -> tuple[Sums, jax.Array]:
            row, to_query = now
            seen = _slice_view(view, row, column, plan)

            def add(sums: Sums) -> Sums:
                queries, gs, tops, inners = (
                    _slice(x, row, plan.queries, 3) for x in (query, g, logs, inner)
                )
                scores = tile.scores(
                    queries, keys, seen, causal=plan.causal, scale=plan.scale, first_key=first_key
                )
                weights = jnp.exp(scores - tops[:, :, None])
                added = tile.gradients(queries, keys, values, weights, gs, inners, scale=plan.scale)
                return jax.tree.map(jnp.add, sums, added)

            to_query, *others = _visit(seen, first_key, plan, add, (to_query, *sums))
            return tuple(others), to_query

        zeros: Sums = jnp.zeros(keys.shape, logs.dtype), jnp.zeros(values.shape, logs.dtype)
        to_keys, to_queries = lax.scan(visit, zeros, (jnp.arange(len(to_queries)), to_queries))
        return to_queries, to_keys

    # The rows of tiles are stacked, so that the loop does not write into one large array.
    rows = query.shape[3] // plan.queries
    zeros = jnp.zeros((rows, *query.shape[:3], plan.queries, query.shape[4]), logs.dtype)
    columns = jnp.arange(key.shape[2] // plan.keys)
    to_query, (to_key, to_value) = lax.scan(column_of_tiles, zeros, columns)
    return (
        _concatenate(to_query, 3).astype(query.dtype),
        _concatenate(to_key, 2).astype(key.dtype),
        _concatenate(to_value, 2).astype(value.dtype),
        None,
    )


_chunked.defvjp(_forward, _backward)
