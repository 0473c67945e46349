"""Long short-term memory and its variants. Shapes: B batch, D inputs, H cell, P projection."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from dlcore.nn.recurrent.cell import Carry, Cell, Hooks, Params, expand, gates, zeros
from dlcore.nn.recurrent.initial import input_kernel, recurrent_kernel
from dlcore.types import PyTree


@dataclasses.dataclass(frozen=True)
class LSTM(Cell):
    """A cell c' = f c + i g, h' = o tanh(c') (Hochreiter & Schmidhuber 1997; Gers 1999 for f).

    i, f, o = sigmoid(x W + h U + b) and g = tanh(x W + h U + b), all four in one product, in the
    order i, f, g, o, which is PyTorch's. Parameters: `input_kernel` (D, 4H), `recurrent_kernel`
    (H, 4H), `bias` (4H,). The bias of the forget gate starts at 1 (Jozefowicz et al. 2015).

    Attributes:
        features: H.
        forget_bias: the initial bias of the forget gate.
    """

    forget_bias: float = 1.0

    recurrent: ClassVar[tuple[str, ...]] = ("recurrent_kernel",)

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        size = self.features
        input_key, recurrent_key = jax.random.split(key)
        return {
            "input_kernel": input_kernel(input_key, inputs, 4 * size),
            "recurrent_kernel": recurrent_kernel(recurrent_key, self.output_features, size, 4),
            "bias": jnp.zeros(4 * size).at[size : 2 * size].set(self.forget_bias),
        }

    def initial_carry(self, batch: int) -> Carry:
        return {"h": zeros(batch, self.output_features), "c": zeros(batch, self.features)}

    def step(
        self, params: Params, carry: Carry, projected: jax.Array, hooks: Hooks
    ) -> tuple[Carry, PyTree]:
        pre = projected + hooks.product("recurrent_kernel", carry["h"])
        c, h = _update(pre, carry["c"], hooks)
        return {"h": h, "c": c}, h


@dataclasses.dataclass(frozen=True)
class PeepholeLSTM(LSTM):
    """An LSTM whose gates also see the cell (Gers & Schmidhuber 2000; Graves 2013, eq. 7-11).

    i and f see the old cell, o the new one, each through a diagonal matrix: `peephole` (3, H), in
    the order i, f, o. It starts at 0, which makes the cell the standard one.
    """

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        return super().init(key, inputs) | {"peephole": jnp.zeros((3, self.features))}

    def step(
        self, params: Params, carry: Carry, projected: jax.Array, hooks: Hooks
    ) -> tuple[Carry, PyTree]:
        c = carry["c"]
        i, f, g, o = gates(projected + hooks.product("recurrent_kernel", carry["h"]), 4)
        i_peep, f_peep, o_peep = (expand(vector, c.ndim) for vector in params["peephole"])
        g = hooks.candidate(jnp.tanh(g))
        c = sigmoid(f + f_peep * c) * c + sigmoid(i + i_peep * c) * g
        h = sigmoid(o + o_peep * c) * jnp.tanh(c)
        return {"h": h, "c": c}, h


@dataclasses.dataclass(frozen=True)
class ProjectionLSTM(LSTM):
    """An LSTM with a recurrent projection: h' = (o tanh(c')) R (Sak et al. 2014, eq. 5).

    h has P features, so a large cell needs no large recurrent matrix. Beside the LSTM's other
    parameters, `recurrent_kernel` is (P, 4H) and `projection_kernel` (H, P). As in PyTorch, there
    are no peepholes and no non-recurrent projection.

    Attributes:
        projection: P; None takes half of H.
    """

    projection: int | None = None

    @property
    def output_features(self) -> int:
        return self.projection or max(1, self.features // 2)

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        key, projection_key = jax.random.split(key)
        projection = input_kernel(projection_key, self.features, self.output_features)
        return super().init(key, inputs) | {"projection_kernel": projection}

    def step(
        self, params: Params, carry: Carry, projected: jax.Array, hooks: Hooks
    ) -> tuple[Carry, PyTree]:
        pre = projected + hooks.product("recurrent_kernel", carry["h"])
        c, h = _update(pre, carry["c"], hooks)
        # Not through `hooks.product`, where variational dropout masks arrays of the width of h.
        h = h @ params["projection_kernel"]
        return {"h": h, "c": c}, h


@dataclasses.dataclass(frozen=True)
class AmidiLSTM(LSTM):
    """The LSTM of a widespread cheat sheet (Amidi & Amidi 2018), which stems from no paper.

    c~ = tanh(x W + (r a) U + b), c' = u c~ + f c, a' = o c'. It differs from the LSTM by a
    relevance gate r on the old output, borrowed from the GRU, and by the missing tanh of the
    output, which is therefore unbounded. u, f, r, o = sigmoid(x W + a U + b).

    Parameters: `input_kernel` (D, 5H) and `bias` (5H,) in the order u, f, r, o, c~;
    `recurrent_kernel` (H, 4H) for the gates, `candidate_kernel` (H, H).
    """

    recurrent = ("recurrent_kernel", "candidate_kernel")

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        size = self.features
        key, input_key, candidate_key = jax.random.split(key, 3)
        params = super().init(key, inputs)
        return params | {
            "input_kernel": input_kernel(input_key, inputs, 5 * size),
            "candidate_kernel": recurrent_kernel(candidate_key, size, size, 1),
            "bias": jnp.concatenate([params["bias"], jnp.zeros(size)]),
        }

    def step(
        self, params: Params, carry: Carry, projected: jax.Array, hooks: Hooks
    ) -> tuple[Carry, PyTree]:
        a, c = carry["h"], carry["c"]
        gates_x, candidate_x = jnp.split(projected, [4 * self.features], axis=-1)
        pre = gates_x + hooks.product("recurrent_kernel", a)
        u, f, r, o = (sigmoid(gate) for gate in gates(pre, 4))
        candidate = jnp.tanh(candidate_x + hooks.product("candidate_kernel", r * a))
        c = u * hooks.candidate(candidate) + f * c
        a = o * c
        return {"h": a, "c": c}, a


def _update(pre: jax.Array, c: jax.Array, hooks: Hooks) -> tuple[jax.Array, jax.Array]:
    if hooks.candidate is Hooks.candidate:
        return lstm_update(pre, c)
    return plain_lstm_update(pre, c, hooks.candidate)


def plain_lstm_update(
    pre: jax.Array, c: jax.Array, candidate: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Returns c' and o tanh(c'), (B, H) each, from the gates' pre-activations (B, 4H) and c."""
    i, f, g, o = gates(pre, 4)
    c = sigmoid(f) * c + sigmoid(i) * candidate(jnp.tanh(g))
    return c, sigmoid(o) * jnp.tanh(c)


@jax.custom_vjp
def lstm_update(pre: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes `plain_lstm_update` without a mask, by a gradient that needs less memory.

    It keeps six arrays (B, H) per step, from which all derivatives follow; automatic
    differentiation would keep the derivatives too.
    """
    return _forward(pre, c)[0]


def _forward(
    pre: jax.Array, c: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, ...]]:
    i, f, g, o = gates(pre, 4)
    i, f, g, o = sigmoid(i), sigmoid(f), jnp.tanh(g), sigmoid(o)
    new = f * c + i * g
    squashed = jnp.tanh(new)
    return (new, o * squashed), (i, f, g, o, c, squashed)


def _backward(
    residuals: tuple[jax.Array, ...], cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    i, f, g, o, c, squashed = residuals
    dc, dh = cotangents
    dc = dc + dh * o * (1 - squashed * squashed)
    slopes = [
        dc * g * i * (1 - i),
        dc * c * f * (1 - f),
        dc * i * (1 - g * g),
        dh * squashed * o * (1 - o),
    ]
    return jnp.concatenate(slopes, axis=-1), dc * f


lstm_update.defvjp(_forward, _backward)
