"""Runs a cell over the steps of a batch of trees.

The states of all nodes are one array; each step reads the states of children and writes those of
its own nodes. Automatic differentiation of such a scan would add a gradient of the whole array at
each step; but every node has one parent, so its gradient is in one place. The backward scan reads
it there and writes the gradients of the children, and the gradient of the parameters is computed
after the scan, for all nodes at once.

Shapes: B batch, L leaves, S steps, W nodes of a step, C children, F numbers of a state, G products.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlcore.nn.tree.cells import Params, TreeCell


class _Places(NamedTuple):
    """Rows of the arrays that the scan reads and writes, in the order of steps.

    Attributes:
        children: (S, W B, C), rows of states; the first B rows are zeros.
        parents: (R,), for each state the row of its gradient as a child; row 0 is zeros.
    """

    children: jax.Array
    parents: jax.Array


def scan_tree(
    cell: TreeCell,
    params: Params,
    leaves: jax.Array,
    read: jax.Array | None,
    children: jax.Array,
) -> jax.Array:
    """Computes the states of the inner nodes of trees, from the leaves to the roots.

    Args:
        cell: the cell.
        params: its parameters.
        leaves: states of the leaves, (B, L, F).
        read: the result of the cell's `read` for inner nodes, (B, S, W, ...), or None.
        children: the positions of the children of each inner node, int (B, S, W, C): 0 for none, 1
            to L for leaves, then inner nodes by step. A node has at most one parent.

    Returns:
        The states of leaves and inner nodes, (B, L + S W, F). Inner nodes without children, which
        are padding, have some state that depends on no other node.
    """
    batch, steps, slots, width = children.shape
    count = leaves.shape[1]
    row = jnp.arange(batch, dtype=children.dtype)
    rows = (children * batch + row[:, None, None, None]).transpose(1, 2, 0, 3)
    rows = rows.reshape(steps, slots * batch, width)
    states = (1 + count + steps * slots) * batch
    # Rows of zeros have no parent; that of a child which is none would be written there.
    slot = jnp.arange(1, rows.size + 1, dtype=children.dtype).reshape(rows.shape)
    target = jnp.where(rows < batch, states, rows)
    parents = jnp.zeros(states, children.dtype).at[target].set(slot, mode="drop")
    by_time = None if read is None else jnp.moveaxis(read, 0, 2)
    if by_time is not None:
        by_time = by_time.reshape(steps, slots * batch, *read.shape[3:])  # type: ignore[union-attr]
    first = jnp.moveaxis(leaves, 0, 1).reshape(count * batch, -1)
    found = _run(cell, params, first, by_time, _Places(rows, parents))
    return jnp.moveaxis(found.reshape(-1, batch, found.shape[-1]), 0, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(
    cell: TreeCell, params: Params, leaves: jax.Array, read: jax.Array | None, places: _Places
) -> jax.Array:
    return _forward(cell, params, leaves, read, places)[0]


def _forward(
    cell: TreeCell, params: Params, leaves: jax.Array, read: jax.Array | None, places: _Places
) -> tuple[jax.Array, Any]:
    steps, rows, _ = places.children.shape
    features = leaves.shape[1]
    start = len(places.parents) - steps * rows
    zeros = jnp.zeros((start - len(leaves), features), leaves.dtype)
    unknown = jnp.zeros((steps * rows, features), leaves.dtype)
    states = jnp.concatenate([zeros, leaves, unknown])

    def step(states: jax.Array, now: Any) -> tuple[jax.Array, jax.Array]:
        number, children, word = now
        known = states[children]
        projected = cell.project(params, known)
        new = cell.combine(projected, word, known).astype(states.dtype)
        return jax.lax.dynamic_update_slice(states, new, (start + number * rows, 0)), projected

    xs = (jnp.arange(steps), places.children, read)
    states, projected = jax.lax.scan(step, states, xs)
    return states[len(zeros) :], (params, states, projected, read, places)


def _backward(cell: TreeCell, residuals: Any, gradient: jax.Array) -> tuple[Any, ...]:
    params, states, projected, read, places = residuals
    steps, rows, width = places.children.shape
    start = len(states) - steps * rows
    before = len(states) - len(gradient)
    leaves = start - before
    own, parents = gradient[leaves:].reshape(steps, rows, -1), places.parents[start:]
    # The gradients of states as children; row 0 is that of nodes without a parent.
    sent = jnp.zeros((1 + steps * rows * width, states.shape[1]), states.dtype)

    def step(sent: jax.Array, now: Any) -> tuple[jax.Array, Any]:
        number, children, parents, projected, word, own = now
        known = states[children]
        new, combine = jax.vjp(cell.combine, projected, word, known)
        of_projected, of_word, direct = combine((own + sent[parents]).astype(new.dtype))
        _, project = jax.vjp(lambda known: cell.project(params, known), known)
        of_known = (direct + project(of_projected)[0]).reshape(rows * width, -1)
        at = (1 + number * rows * width, 0)
        return jax.lax.dynamic_update_slice(sent, of_known, at), (of_projected, of_word)

    xs = (
        jnp.arange(steps),
        places.children,
        parents.reshape(steps, rows),
        projected,
        read,
        own,
    )
    sent, (of_projected, of_read) = jax.lax.scan(step, sent, xs, reverse=True)
    _, project = jax.vjp(lambda params: cell.project(params, states[places.children]), params)
    (of_params,) = project(of_projected)
    of_leaves = gradient[:leaves] + sent[places.parents[before:start]]
    return of_params, of_leaves, of_read, None


_run.defvjp(_forward, _backward)
