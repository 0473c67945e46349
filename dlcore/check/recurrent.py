"""Measures how far gradients reach in a recurrent net and how its gates behave.

Shapes: B batch, T time, D input features, H state features.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import sigmoid

from dlcore.errors import pick
from dlcore.nn.recurrent.cell import Carry, Cell, Hooks, Params, expand, gates
from dlcore.nn.recurrent.gru import GRU, GRUAfter
from dlcore.nn.recurrent.highway import Highway
from dlcore.nn.recurrent.lstm import LSTM, ProjectionLSTM
from dlcore.nn.sequences import length_mask
from dlcore.types import PyTree

Gates = dict[str, jax.Array]
_SHUT, _OPEN = 0.1, 0.9


class Saturation(NamedTuple):
    """The shares of the steps at which the gate of each unit is nearly shut or nearly open.

    Attributes:
        shut: the share of steps with a gate below 0.1, [H].
        open: the share of steps with a gate above 0.9, [H].
    """

    shut: np.ndarray
    open: np.ndarray


def gradient_by_distance(
    cell: Cell, params: Params, x: jax.Array, *, key: jax.Array, state: Params | None = None
) -> np.ndarray:
    """Measures how much of the gradient of a loss at the last step reaches each earlier step.

    Through a step the gradient is multiplied by the step's Jacobian. Over many steps it vanishes or
    explodes exponentially: for h' = tanh(x W + h U + b) it cannot grow where the largest singular
    value of U is below 1, and in the long run follows the spectral radius where the units are in
    their linear range (Bengio et al. 1994; Pascanu et al. 2013).

    Args:
        cell: any cell, run as in evaluation.
        params: the parameters of the cell.
        x: the inputs [B, T, D].
        key: the key that draws a random vector of length 1 for each example; the loss is its
            product with the last output.
        state: the running statistics of the cell, by default the initial ones.

    Returns:
        [T + 1], the mean over the examples of the gradient's norm: at index 0 with respect to the
        last output, which is 1; at k > 0 with respect to the whole carry (for the LSTM both h and
        c) before the last k steps.
    """

    def loss(taps: Carry, params: Params, prepared: PyTree, direction: jax.Array) -> jax.Array:
        def step(carry: Carry, inputs: PyTree) -> tuple[Carry, jax.Array]:
            tap, projected = inputs
            carry = jax.tree.map(jnp.add, carry, tap)
            return cell.step(params, carry, projected, _hooks(params))

        _, outputs = jax.lax.scan(step, cell.initial_carry(len(x)), (taps, prepared))
        outputs, _ = cell.finish(state or cell.init_state(), outputs, False)
        return jnp.sum(direction * outputs[-1])

    @jax.jit
    def norms(params: Params, x: jax.Array, direction: jax.Array) -> jax.Array:
        # A tap is a zero that is added to the carry, so its gradient is the gradient by the carry.
        taps = jax.tree.map(
            lambda leaf: jnp.zeros((x.shape[1], *leaf.shape)), cell.initial_carry(len(x))
        )
        gradients = jax.grad(loss)(taps, params, _prepare(cell, params, x, state), direction)
        squares = [jnp.sum(leaf**2, range(2, leaf.ndim)) for leaf in jax.tree.leaves(gradients)]
        return jnp.mean(jnp.sqrt(sum(squares, start=jnp.zeros(()))), 1)

    direction = jax.random.normal(key, (len(x), cell.output_features))
    direction /= jnp.linalg.norm(direction, axis=1, keepdims=True)
    return np.concatenate([[1.0], np.asarray(norms(params, x, direction))[::-1]])


def gate_statistics(
    cell: Cell, params: Params, x: jax.Array, *, lengths: jax.Array | None = None
) -> dict[str, Saturation]:
    """Measures how often each gate is shut or open (Karpathy et al. 2015, section 4.2).

    A unit whose forget gate is always open remembers for long; if it is always shut, the unit
    forgets everything at each step; a unit whose input or output gate is always shut is lost.

    Args:
        cell: a cell with gates, one of `GATES`.
        params: its parameters.
        x: inputs [B, T, D].
        lengths: int [B]; steps past them do not count. By default T.

    Returns:
        The shares by the name of the gate.

    Raises:
        InputError: for a cell that is not in `GATES`.
    """
    names = {known.__name__: rule for known, rule in GATES.items()}
    rule = pick("cell with gates", type(cell).__name__, names)

    @jax.jit
    def shares(params: Params, x: jax.Array, mask: jax.Array) -> PyTree:
        def step(carry: Carry, projected: PyTree) -> tuple[Carry, Gates]:
            new, _ = cell.step(params, carry, projected, _hooks(params))
            return new, rule(cell, params, carry, projected)

        _, values = jax.lax.scan(step, cell.initial_carry(len(x)), _prepare(cell, params, x, None))
        weights = mask.T[..., None].astype(jnp.float32) / mask.sum().astype(jnp.float32)

        def share(saturated: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(saturated, weights, 0), (0, 1))

        return {name: (share(gate < _SHUT), share(gate > _OPEN)) for name, gate in values.items()}

    if lengths is None:
        lengths = jnp.full(len(x), x.shape[1])
    pairs = jax.device_get(shares(params, x, length_mask(lengths, x.shape[1])))
    return {name: Saturation(*pair) for name, pair in pairs.items()}


def _hooks(params: Params) -> Hooks:
    return Hooks(lambda name, h: h @ params[name])


def _prepare(cell: Cell, params: Params, x: jax.Array, state: Params | None) -> PyTree:
    return cell.prepare(params, state or cell.init_state(), x.swapaxes(0, 1), None, False)


def _lstm(cell: Cell, params: Params, carry: Carry, projected: jax.Array) -> Gates:
    i, f, _, o = gates(projected + carry["h"] @ params["recurrent_kernel"], 4)
    return {"input": sigmoid(i), "forget": sigmoid(f), "output": sigmoid(o)}


def _gru(cell: Cell, params: Params, carry: Carry, projected: jax.Array) -> Gates:
    both = slice(2 * cell.features)
    r, u = gates(projected[:, both] + carry["h"] @ params["recurrent_kernel"][:, both], 2)
    return {"reset": sigmoid(r), "update": sigmoid(u)}


def _highway(cell: Cell, params: Params, carry: Carry, projected: jax.Array) -> Gates:
    s, values = carry["h"], {}
    offsets = [projected, *(expand(bias, 2) for bias in params["depth_bias"])]
    for layer, (name, offset) in enumerate(zip(cell.recurrent, offsets, strict=True), 1):
        g, t = gates(offset + s @ params[name], 2)
        values[f"transform {layer}"] = t = sigmoid(t)
        s = t * jnp.tanh(g) + (1 - t) * s
    return values


# For each kind of cell the function (cell, params, carry, projected input) -> the activations of
# its gates in that step, [B, H] by name.
GATES: dict[type[Cell], Callable[[Cell, Params, Carry, jax.Array], Gates]] = {
    LSTM: _lstm,
    ProjectionLSTM: _lstm,
    GRU: _gru,
    GRUAfter: _gru,
    Highway: _highway,
}
