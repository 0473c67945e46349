"""Runs a cell over time.

Only the carry forces the steps of a recurrent net to run one after the other. A single product
before the scan computes the input products of all steps, and a single product after it computes the
gradient of each recurrent matrix: automatic differentiation of a scan would add an outer product to
the whole matrix at each step, which moves more memory than all the rest.

Shapes: T time, B batch, D inputs, F outputs.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlcore.nn.dense import sum_outer
from dlcore.nn.recurrent.cell import Carry, Cell, Hooks, Params
from dlcore.types import PyTree


class Noise(NamedTuple):
    """Masks of dropout inside the recurrence; each holds 0 and 1 / (1 - rate), or is None.

    Attributes:
        state: (B, H), one mask for all steps, on the inputs of the recurrent matrices: variational
            dropout (Gal & Ghahramani 2016).
        candidate: (T, B, H), one mask for each step, on the values added to the carry: recurrent
            dropout without memory loss (Semeniuta et al. 2016).
    """

    state: jax.Array | None = None
    candidate: jax.Array | None = None


NO_NOISE = Noise()


# Zeros (T, B, G) by the name of each recurrent matrix, whose gradient is that of its products.
Taps = dict[str, jax.Array] | None
# The pull-back of the scan and the left factors of each recurrent matrix.
Residuals = tuple[Callable[[PyTree], tuple[PyTree, ...]], dict[str, jax.Array]]
# Mask, cuts of the gradient, and noise, which get no gradient.
Fixed = tuple[jax.Array | None, jax.Array | None, Noise]


class _Static(NamedTuple):
    """The arguments that are fixed at compile time."""

    cell: Cell
    reverse: bool


def scan(
    cell: Cell,
    params: Params,
    carry: Carry,
    prepared: PyTree,
    *,
    mask: jax.Array | None = None,
    reverse: bool = False,
    detach: int | None = None,
    noise: Noise = NO_NOISE,
) -> tuple[Carry, PyTree]:
    """Runs a cell over T steps.

    Steps without an input keep the carry and output 0, so padding on the right changes nothing:
    forwards the final carry is that of the last input, and a reverse scan starts with the last
    input of each sequence.

    Args:
        cell: the cell.
        params: its parameters.
        carry: the carry before the first step, each leaf (B, ...).
        prepared: the result of `cell.prepare`, a tree with leading axis T.
        mask: (T, B), true where there is an input; None where there is one everywhere.
        reverse: whether to run from the last step to the first.
        detach: the number of steps after which the gradient through the carry is cut; None never
            cuts it.
        noise: masks of dropout.

    Returns:
        The carry after the last step and the steps' outputs, stacked along T in the order of time.
    """
    recurrent = {name: params[name] for name in cell.recurrent}
    others = {name: value for name, value in params.items() if name not in recurrent}
    length = jax.tree.leaves(prepared)[0].shape[0]
    cut = None
    if detach is not None:
        present = jnp.ones((length, 1), bool) if mask is None else mask
        # Steps count from the start of each sequence, so that padding moves no cut and has none.
        times = jax.lax.cumsum(present.astype(jnp.int32), reverse=reverse) - 1
        cut = (times % detach == 0) & present
    fixed = (mask, cut, noise)
    return _run(_Static(cell, reverse), recurrent, others, carry, prepared, fixed)


def _steps(
    static: _Static,
    others: Callable[[], Params],
    carry: Carry,
    prepared: PyTree,
    fixed: Fixed,
    taps: Taps,
    product: Callable[[str, jax.Array, Taps], jax.Array],
) -> tuple[Carry, PyTree, dict[str, jax.Array]]:
    """Runs the scan; also returns the left factors of each recurrent matrix, (T, B, H) each."""
    mask, cut, noise = fixed

    def body(carry: Carry, now: PyTree) -> tuple[Carry, PyTree]:
        projected, mask, cut, update_mask, taps = now
        factors = {}

        def record(name: str, h: jax.Array) -> jax.Array:
            factors[name] = h = h if noise.state is None else h * noise.state
            return product(name, h, taps)

        hooks = Hooks(record)
        if update_mask is not None:
            hooks = Hooks(record, lambda update: update * update_mask)
        if cut is not None:
            carry = jax.tree.map(lambda c: _where(cut, jax.lax.stop_gradient(c), c), carry)
        new, y = static.cell.step(others(), carry, projected, hooks)
        if mask is not None:
            new = jax.tree.map(functools.partial(_where, mask), new, carry)
            y = jax.tree.map(
                lambda leaf: _where(mask, leaf, jnp.zeros_like(leaf)) if leaf.ndim > 1 else leaf, y
            )
        return new, (y, factors)

    xs = (prepared, mask, cut, noise.candidate, taps)
    carry, (ys, factors) = jax.lax.scan(body, carry, xs, reverse=static.reverse)
    return carry, ys, factors


def _where(rows: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.where(rows.reshape(rows.shape + (1,) * (left.ndim - 1)), left, right)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(
    static: _Static, recurrent: Params, others: Params, carry: Carry, prepared: PyTree, fixed: Fixed
) -> tuple[Carry, PyTree]:
    carry, ys, _ = _steps(
        static, lambda: others, carry, prepared, fixed, None, lambda name, h, _: h @ recurrent[name]
    )
    return carry, ys


def _run_forward(
    static: _Static, recurrent: Params, others: Params, carry: Carry, prepared: PyTree, fixed: Fixed
) -> tuple[tuple[Carry, PyTree], Residuals]:
    length = jax.tree.leaves(prepared)[0].shape[0]
    batch = jax.tree.leaves(carry)[0].shape[0]
    taps = {
        name: jnp.zeros((length, batch, matrix.shape[-1]), matrix.dtype)
        for name, matrix in recurrent.items()
    }

    # Transposed once, before the loop, whose products are twice as fast in this order.
    transposed = {name: matrix.T for name, matrix in recurrent.items()}

    def product(name: str, h: jax.Array, taps: Taps) -> jax.Array:
        assert taps is not None
        return _tapped(h, recurrent[name], transposed[name], taps[name])

    def run(
        others: Params, carry: Carry, prepared: PyTree, taps: Taps
    ) -> tuple[tuple[Carry, PyTree], dict[str, jax.Array]]:
        # The scan adds the gradients of all steps, which bfloat16 would round at each of them. As
        # every step narrows its parameters anew, the sum is one of float32.
        wide = jax.tree.map(
            lambda leaf: leaf.astype(jnp.float32) if leaf.dtype.itemsize < 4 else leaf, others
        )

        def narrow() -> Params:
            return jax.tree.map(lambda sums, leaf: sums.astype(leaf.dtype), wide, others)

        carry, ys, factors = _steps(static, narrow, carry, prepared, fixed, taps, product)
        return (carry, ys), factors

    out, backward, factors = jax.vjp(run, others, carry, prepared, taps, has_aux=True)
    return out, (backward, factors)


def _run_backward(
    static: _Static, residuals: Residuals, cotangents: PyTree
) -> tuple[PyTree, PyTree, PyTree, PyTree, None]:
    backward, factors = residuals
    others, carry, prepared, taps = backward(cotangents)
    recurrent = {name: sum_outer(factors[name], taps[name]) for name in taps}
    return recurrent, others, carry, prepared, None


_run.defvjp(_run_forward, _run_backward)


@jax.custom_vjp
def _tapped(h: jax.Array, matrix: jax.Array, transposed: jax.Array, tap: jax.Array) -> jax.Array:
    """Returns h @ matrix and sends the gradient of this product to `tap` instead of the matrix."""
    return h @ matrix


_tapped.defvjp(
    lambda h, matrix, transposed, tap: (h @ matrix, transposed),
    lambda transposed, g: (g @ transposed, jnp.zeros_like(transposed.T), None, g),
)
