"""Recurrent highway networks. Shapes: B batch, D inputs, H state features, L depth."""

import dataclasses

import jax
import jax.numpy as jnp

from dlcore.nn.recurrent.cell import Carry, Cell, Hooks, Params, expand, gates, zeros
from dlcore.nn.recurrent.initial import input_kernel, recurrent_kernel


@dataclasses.dataclass(frozen=True)
class Highway(Cell):
    """A cell with several highway layers in each step of time (Zilly et al. 2017, eq. 6-9).

    From s = h, the layers l = 1..L compute s' = g t + s (1 - t), where g = tanh(x W + s U_l + b_l),
    and t is a sigmoid of the same form with its own columns; only the first layer sees x. The carry
    gate is coupled to the transform gate, 1 - t, as in all of the paper's experiments. Then h' = s.

    Parameters, in the order g, t: `input_kernel` (D, 2H), `recurrent_kernel_l` (H, 2H) for each
    layer, `bias` (2H,) of the first and `depth_bias` (L - 1, 2H) of the others. The bias of t
    starts below 0, so that at first most of the state passes through.

    Attributes:
        features: H.
        depth: L.
        transform_bias: the initial bias of the transform gates.
    """

    depth: int = 2
    transform_bias: float = -2.0

    @property
    def recurrent(self) -> tuple[str, ...]:
        return tuple(f"recurrent_kernel_{layer}" for layer in range(1, self.depth + 1))

    def init(self, key: jax.Array, inputs: int) -> dict[str, jax.Array]:
        size = self.features
        input_key, *keys = jax.random.split(key, 1 + self.depth)
        bias = jnp.repeat(jnp.array([0.0, self.transform_bias]), size)
        kernels = {
            name: recurrent_kernel(k, size, size, 2)
            for name, k in zip(self.recurrent, keys, strict=True)
        }
        return kernels | {
            "input_kernel": input_kernel(input_key, inputs, 2 * size),
            "bias": bias,
            "depth_bias": jnp.tile(bias, (self.depth - 1, 1)),
        }

    def initial_carry(self, batch: int) -> Carry:
        return {"h": zeros(batch, self.features)}

    def step(
        self, params: Params, carry: Carry, projected: jax.Array, hooks: Hooks
    ) -> tuple[Carry, jax.Array]:
        s = carry["h"]
        deeper = (expand(bias, s.ndim) for bias in params["depth_bias"])
        for name, offset in zip(self.recurrent, (projected, *deeper), strict=True):
            g, t = gates(offset + hooks.product(name, s), 2)
            t = jax.nn.sigmoid(t)
            s = t * hooks.candidate(jnp.tanh(g)) + (1 - t) * s
        return {"h": s}, s
