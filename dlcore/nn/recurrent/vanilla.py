"""The simple recurrent net. Shapes: B batch, D inputs, H state features."""

import dataclasses

import jax
import jax.numpy as jnp

from dlcore import errors
from dlcore.nn.recurrent.cell import Carry, Cell, Hooks, Params, zeros
from dlcore.nn.recurrent.initial import input_kernel, recurrent_kernel

_ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}


@dataclasses.dataclass(frozen=True)
class Vanilla(Cell):
    """A cell h' = activation(x W + h U + b) (Elman 1990).

    With ReLU it is the IRNN: U starts as the identity and b as 0, so that at first the state stays
    and inputs add to it (Le, Jaitly & Hinton 2015). With tanh, U starts orthogonal.
    Parameters: `input_kernel` (D, H), `recurrent_kernel` (H, H), `bias` (H,).

    The new state keeps no part of the old one, so recurrent dropout masks all of h'.

    Attributes:
        features: H.
        activation: "tanh" or "relu".

    Raises:
        InputError: for any other activation.
    """

    activation: str = "tanh"

    recurrent = ("recurrent_kernel",)

    def __post_init__(self) -> None:
        errors.pick("activation of a vanilla cell", self.activation, _ACTIVATIONS)

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        size = self.features
        input_key, recurrent_key = jax.random.split(key)
        identity = self.activation == "relu"
        return {
            "input_kernel": input_kernel(input_key, inputs, size),
            "recurrent_kernel": jnp.eye(size)
            if identity
            else recurrent_kernel(recurrent_key, size, size, 1),
            "bias": jnp.zeros(size),
        }

    def initial_carry(self, batch: int) -> Carry:
        return {"h": zeros(batch, self.features)}

    def step(
        self, params: Params, carry: Carry, projected: jax.Array, hooks: Hooks
    ) -> tuple[Carry, jax.Array]:
        pre = projected + hooks.product("recurrent_kernel", carry["h"])
        h = hooks.candidate(_ACTIVATIONS[self.activation](pre))
        return {"h": h}, h
