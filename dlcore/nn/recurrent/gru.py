"""The two common gated recurrent units. Shapes: B batch, D inputs, H features.

Both keep a share 1 - u of the old state: h' = u h~ + (1 - u) h (Chung et al. 2014). The first paper
(Cho et al. 2014), PyTorch and Flax call that share z = 1 - u. The reset gate r acts before the
recurrent product in one and after it in the other. They are different functions, so neither can use
the other's parameters.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from dlcore.nn.recurrent.cell import Carry, Cell, Hooks, Params, expand, gates, zeros
from dlcore.nn.recurrent.initial import input_kernel, recurrent_kernel


@dataclasses.dataclass(frozen=True)
class GRU(Cell):
    """The paper's GRU, with reset before the product: h~ = tanh(x W + (r h) U + b).

    The source is Cho et al. 2014. r, u = sigmoid(x W + h U + b). Parameters: `input_kernel` (D, 3H)
    and `bias` (3H,) in the order r, u, h~; `recurrent_kernel` (H, 2H) for r, u; `candidate_kernel`
    (H, H).

    Attributes:
        features: H.
    """

    recurrent = ("recurrent_kernel", "candidate_kernel")

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        size = self.features
        input_key, recurrent_key, candidate_key = jax.random.split(key, 3)
        return {
            "input_kernel": input_kernel(input_key, inputs, 3 * size),
            "recurrent_kernel": recurrent_kernel(recurrent_key, size, size, 2),
            "candidate_kernel": recurrent_kernel(candidate_key, size, size, 1),
            "bias": jnp.zeros(3 * size),
        }

    def initial_carry(self, batch: int) -> Carry:
        return {"h": zeros(batch, self.features)}

    def step(
        self, params: Params, carry: Carry, projected: jax.Array, hooks: Hooks
    ) -> tuple[Carry, jax.Array]:
        h = carry["h"]
        gates_x, candidate_x = jnp.split(projected, [2 * self.features], axis=-1)
        r, u = gates(sigmoid(gates_x + hooks.product("recurrent_kernel", h)), 2)
        candidate = jnp.tanh(candidate_x + hooks.product("candidate_kernel", r * h))
        h = u * hooks.candidate(candidate) + (1 - u) * h
        return {"h": h}, h


@dataclasses.dataclass(frozen=True)
class GRUAfter(Cell):
    """The GRU of cuDNN, PyTorch and Flax, with reset after: h~ = tanh(x W + b + r (h U + b')).

    It has a single recurrent product, which makes it the faster of the two. Parameters:
    `input_kernel` (D, 3H), `recurrent_kernel` (H, 3H) and `bias` (3H,) in the order r, u, h~;
    `recurrent_bias` (H,) is b'.

    Attributes:
        features: H.
    """

    recurrent = ("recurrent_kernel",)

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        size = self.features
        input_key, recurrent_key = jax.random.split(key)
        return {
            "input_kernel": input_kernel(input_key, inputs, 3 * size),
            "recurrent_kernel": recurrent_kernel(recurrent_key, size, size, 3),
            "bias": jnp.zeros(3 * size),
            "recurrent_bias": jnp.zeros(size),
        }

    def initial_carry(self, batch: int) -> Carry:
        return {"h": zeros(batch, self.features)}

    def step(
        self, params: Params, carry: Carry, projected: jax.Array, hooks: Hooks
    ) -> tuple[Carry, jax.Array]:
        product = hooks.product("recurrent_kernel", carry["h"])
        # All arguments need one type, because nothing casts the gradients of `gru_update`.
        projected = projected.astype(product.dtype)
        h, bias = carry["h"], params["recurrent_bias"].astype(product.dtype)
        if hooks.candidate is Hooks.candidate:
            h = gru_update(projected, product, bias, h)
        else:
            h = plain_gru_update(projected, product, bias, h, hooks.candidate)
        return {"h": h}, h


def plain_gru_update(
    projected: jax.Array,
    product: jax.Array,
    bias: jax.Array,
    h: jax.Array,
    candidate: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Returns h' (B, H) of `GRUAfter` from x W + b and h U (B, 3H) each, b' and h."""
    r_x, u_x, candidate_x = gates(projected, 3)
    r_h, u_h, candidate_h = gates(product, 3)
    r, u = sigmoid(r_x + r_h), sigmoid(u_x + u_h)
    new = jnp.tanh(candidate_x + r * (candidate_h + expand(bias, h.ndim)))
    return u * candidate(new) + (1 - u) * h


@jax.custom_vjp
def gru_update(
    projected: jax.Array, product: jax.Array, bias: jax.Array, h: jax.Array
) -> jax.Array:
    """Computes `plain_gru_update` without a mask, by a gradient that needs less memory.

    It keeps five arrays (B, H) per step; automatic differentiation would keep derivatives too.
    """
    return _forward(projected, product, bias, h)[0]


def _forward(
    projected: jax.Array, product: jax.Array, bias: jax.Array, h: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    r_x, u_x, candidate_x = gates(projected, 3)
    r_h, u_h, candidate_h = gates(product, 3)
    r, u = sigmoid(r_x + r_h), sigmoid(u_x + u_h)
    candidate_h = candidate_h + expand(bias, h.ndim)
    new = jnp.tanh(candidate_x + r * candidate_h)
    return u * new + (1 - u) * h, (r, u, new, candidate_h, h)


def _backward(residuals: tuple[jax.Array, ...], dh: jax.Array) -> tuple[jax.Array, ...]:
    r, u, new, candidate_h, h = residuals
    dnew = dh * u * (1 - new * new)
    dr = dnew * candidate_h * r * (1 - r)
    du = dh * (new - h) * u * (1 - u)
    projected = jnp.concatenate([dr, du, dnew], axis=-1)
    product = jnp.concatenate([dr, du, dnew * r], axis=-1)
    return projected, product, (dnew * r).sum(0), dh * (1 - u)


gru_update.defvjp(_forward, _backward)
