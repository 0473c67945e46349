"""Running a cell over time.

The steps of a recurrent net must come one after the other; the rest need not. The input products of
all steps are one product before the scan, and so are, after it, the gradients of the recurrent
matrices: automatic differentiation of a scan would add one outer product to the whole matrix at
each step, which moves more memory than all the rest. Shapes: T time, B batch, D inputs, F outputs.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlcore.nn.recurrent.cell import Carry, Cell, Hooks, Params


class Noise(NamedTuple):
    """Dropout inside of the recurrence; each mask holds 0 and 1 / (1 - rate), or is None.

    Attributes:
        state: (B, H), one for all steps, on what the recurrent matrices see: variational dropout
            (Gal & Ghahramani 2016).
        candidate: (T, B, H), one for each step, on what is added to the carry: recurrent dropout
            without memory loss (Semeniuta et al. 2016).
    """

    state: jax.Array | None = None
    candidate: jax.Array | None = None


NO_NOISE = Noise()


class _How(NamedTuple):
    cell: Cell
    reverse: bool


def scan(
    cell: Cell,
    params: Params,
    carry: Carry,
    prepared: Any,
    *,
    mask: jax.Array | None = None,
    reverse: bool = False,
    detach: int | None = None,
    noise: Noise = NO_NOISE,
) -> tuple[Carry, Any]:
    """Runs a cell over T steps.

    Steps without an input leave the carry as it is and give 0, so padding on the right changes
    nothing: forwards the last carry is that of the last input, and in reverse the first input met
    is the last one of each sequence.

    Args:
        cell: the cell.
        params: its parameters.
        carry: the carry before the first step, each leaf (B, ...).
        prepared: what `cell.prepare` gave, a tree of leading axis T.
        mask: (T, B), true where there is an input; None where everywhere.
        reverse: whether to go from the last step to the first.
        detach: after how many steps the gradient through the carry is cut; None never.
        noise: masks of dropout.

    Returns:
        The carry after the last step and what the steps gave, stacked along T in the order of time.
    """
    recurrent = {name: params[name] for name in cell.recurrent}
    others = {name: value for name, value in params.items() if name not in recurrent}
    length = jax.tree.leaves(prepared)[0].shape[0]
    cut = None
    if detach is not None:
        present = jnp.ones((length, 1), bool) if mask is None else mask
        # Counted from the start of each sequence, so that padding moves no cut and has none.
        times = jax.lax.cumsum(present.astype(jnp.int32), reverse=reverse) - 1
        cut = (times % detach == 0) & present
    fixed = (mask, cut, noise)
    return _run(_How(cell, reverse), recurrent, others, carry, prepared, fixed)


def _steps(
    how: _How,
    others: Params,
    carry: Carry,
    prepared: Any,
    fixed: tuple[jax.Array | None, jax.Array | None, Noise],
    taps: Any,
    product: Callable[[str, jax.Array, Any], jax.Array],
) -> tuple[Carry, Any, Any]:
    """The scan itself; also gives what each recurrent matrix was multiplied by, (T, B, H) each."""
    mask, cut, noise = fixed

    def body(carry: Carry, now: Any) -> tuple[Carry, Any]:
        projected, mask, cut, update_mask, taps = now
        seen = {}

        def recorded(name: str, h: jax.Array) -> jax.Array:
            seen[name] = h = h if noise.state is None else h * noise.state
            return product(name, h, taps)

        hooks = Hooks(recorded)
        if update_mask is not None:
            hooks = Hooks(recorded, lambda update: update * update_mask)
        if cut is not None:
            carry = jax.tree.map(lambda c: _where(cut, jax.lax.stop_gradient(c), c), carry)
        new, y = how.cell.step(others, carry, projected, hooks)
        if mask is not None:
            new = jax.tree.map(functools.partial(_where, mask), new, carry)
            y = jax.tree.map(
                lambda leaf: _where(mask, leaf, jnp.zeros_like(leaf)) if leaf.ndim > 1 else leaf, y
            )
        return new, (y, seen)

    xs = (prepared, mask, cut, noise.candidate, taps)
    carry, (ys, seen) = jax.lax.scan(body, carry, xs, reverse=how.reverse)
    return carry, ys, seen


def _where(rows: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.where(rows.reshape(rows.shape + (1,) * (left.ndim - 1)), left, right)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(
    how: _How, recurrent: Params, others: Params, carry: Carry, prepared: Any, fixed: Any
) -> tuple[Carry, Any]:
    carry, ys, _ = _steps(
        how, others, carry, prepared, fixed, None, lambda name, h, _: h @ recurrent[name]
    )
    return carry, ys


def _run_forward(
    how: _How, recurrent: Params, others: Params, carry: Carry, prepared: Any, fixed: Any
) -> tuple[tuple[Carry, Any], Any]:
    length = jax.tree.leaves(prepared)[0].shape[0]
    batch = jax.tree.leaves(carry)[0].shape[0]
    taps = {
        name: jnp.zeros((length, batch, matrix.shape[-1]), matrix.dtype)
        for name, matrix in recurrent.items()
    }

    # Transposed once, before the loop: its products are twice as fast on a matrix in their order.
    transposed = {name: matrix.T for name, matrix in recurrent.items()}

    def run(others: Params, carry: Carry, prepared: Any, taps: Any) -> tuple[Any, Any]:
        carry, ys, seen = _steps(
            how,
            others,
            carry,
            prepared,
            fixed,
            taps,
            lambda name, h, taps: _tapped(h, recurrent[name], transposed[name], taps[name]),
        )
        return (carry, ys), seen

    out, backward, seen = jax.vjp(run, others, carry, prepared, taps, has_aux=True)
    return out, (backward, seen)


def _run_backward(how: _How, residuals: Any, cotangents: Any) -> tuple[Any, ...]:
    backward, seen = residuals
    others, carry, prepared, taps = backward(cotangents)
    recurrent = {name: jnp.einsum("tbh,tbg->hg", seen[name], taps[name]) for name in taps}
    return recurrent, others, carry, prepared, None


_run.defvjp(_run_forward, _run_backward)


@jax.custom_vjp
def _tapped(h: jax.Array, matrix: jax.Array, transposed: jax.Array, tap: jax.Array) -> jax.Array:
    """h @ matrix, whose gradient goes to `tap` instead of to the matrix."""
    return h @ matrix


_tapped.defvjp(
    lambda h, matrix, transposed, tap: (h @ matrix, transposed),
    lambda transposed, g: (g @ transposed, jnp.zeros_like(transposed.T), None, g),
)
