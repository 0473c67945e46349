"""A recurrent cell that reads its input and the context that its old state attends to.

Bahdanau et al. 2015 (appendix A.1.2) and soft attention to pictures (Xu et al. 2015, section 3.1.2)
place the attention in this way; `dlcore.nn.attention.decoder` places it like Luong et al. 2015,
where the new state attends.

Shapes: B batch, W hypotheses of each example, R = B W rows, T steps, S memory steps, E input
features, F features of the state h, M memory features.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from dlcore.nn.attention.decoder import KnownProduct, by_rows
from dlcore.nn.attention.scores import Attended, Attention, Queries
from dlcore.nn.dense import multiply_rows
from dlcore.nn.recurrent.cell import Carry, Cell, Hooks, Params
from dlcore.nn.recurrent.scan import scan
from dlcore.types import PyTree


class Read(NamedTuple):
    """The outputs of the steps of an `AttendingCell`.

    Attributes:
        states: h after each step, [R, T, F].
        contexts: z, the contexts that the old states attended to, [R, T, M].
        weights: the attention weights [R, T, S], exactly 0 at padding.
    """

    states: jax.Array
    contexts: jax.Array
    weights: jax.Array


@dataclasses.dataclass(frozen=True)
class AttendingCell(Cell):
    """A cell with the inputs [x; z], where z is the context that its old state h attends to.

    With `gated`, z is multiplied by beta = sigmoid(h W + b), a number for each step (Xu et al.
    2015, section 4.2.1).

    Parameters: `cell` holds the parameters of the cell, with an `input_kernel` (E + M, ...),
    `attention` those of the attention; with a gate there are `gate_kernel` (F, 1) and `gate_bias`
    (1,).

    Attributes:
        features: F.
        cell: a cell without running statistics.
        attention: an attention whose scores do not depend on the attention so far.
        memory: M.
        gated: whether there is a gate.
    """

    cell: Cell
    attention: Attention
    memory: int
    gated: bool = True

    @property
    def recurrent(self) -> tuple[str, ...]:
        names = [f"cell/{name}" for name in self.cell.recurrent] + ["context_kernel"]
        names += [f"attention/{name}" for name in self.attention.matrices]
        return (*names, "gate_kernel") if self.gated else tuple(names)

    def init(self, key: jax.Array, inputs: int) -> dict[str, PyTree]:
        cell_key, attention_key, gate_key = jax.random.split(key, 3)
        params: dict[str, PyTree] = {"cell": self.cell.init(cell_key, inputs + self.memory)}
        if attention := self.attention.init(attention_key, self.features, self.memory):
            params["attention"] = attention
        if self.gated:
            params["gate_kernel"] = nn.initializers.lecun_normal()(gate_key, (self.features, 1))
            params["gate_bias"] = jnp.zeros(1)
        return params

    def initial_carry(self, batch: int) -> Carry:
        return self.cell.initial_carry(batch)

    def run(
        self, params: Params, carry: Carry, x: jax.Array, attended: Attended
    ) -> tuple[Carry, Read]:
        """Runs over T steps.

        Args:
            params: as `init` returns them.
            carry: the carry of the cell before these steps.
            x: [R, T, E].
            attended: the result of `attention.prepare` for B examples; row b W + w of x attends to
                example b.

        Returns:
            The carry after the last step, and the outputs of the steps.
        """
        flat = flatten_dict(params, sep="/") | {"attended": attended}
        kernel = flat.pop("cell/input_kernel")
        flat["context_kernel"] = kernel[x.shape[-1] :]
        product = multiply_rows(x.swapaxes(0, 1), kernel[: x.shape[-1]])
        last, steps = scan(self, flat, carry, product)
        return last, jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), steps)

    def step(
        self, params: Params, carry: Carry, projected: jax.Array, hooks: Hooks
    ) -> tuple[Carry, Read]:
        """Runs one step on the flat parameters that `run` gives to `scan`."""
        params = unflatten_dict(params, sep="/")
        attended, h = params["attended"], carry["h"]
        batch, rows = len(attended.mask), len(h)
        product = by_rows(hooks.product)
        states = h.reshape(batch, -1, h.shape[-1])
        with jax.named_scope("attention"):  # where its parameters are
            context, weights = self.attention(
                params.get("attention", {}),
                Queries(states, jnp.zeros(states.shape[:2], jnp.int32)),
                attended,
                product=lambda name, y: product(f"attention/{name}", y),
            )
        context = context.reshape(rows, -1)
        if self.gated:
            gate = hooks.product("gate_kernel", h) + params["gate_bias"][None]
            context = nn.sigmoid(gate) * context
        known = projected + hooks.product("context_kernel", context.astype(h.dtype))
        cell_params = params["cell"] | {"input_kernel": KnownProduct(known)}
        with jax.named_scope("cell"):
            carry, h = self.cell.step(
                cell_params,
                carry,
                self.cell.project(cell_params, known),
                Hooks(lambda name, y: hooks.product(f"cell/{name}", y), hooks.candidate),
            )
        return carry, Read(h, context, weights.reshape(rows, -1))
