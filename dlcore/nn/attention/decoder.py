"""The recurrent part of a decoder: a stack of cells whose highest state attends to a memory.

Attention from the state h to the memory gives a context c, and both give the attentional vector
h~ = tanh([c; h] W) (Luong et al. 2015, eq. 5), from which the model predicts words. Input feeding
makes h~ a part of the next step's input (section 3.3); similarly, in Bahdanau et al. 2015 the
context of the old state enters the cell.

Where no step needs the attention of earlier steps, the cells run over all steps first, and then all
states attend at once. Input feeding and coverage need it. There one scan does each step as a whole,
except for the products with inputs known beforehand, and the gradients of its matrices are computed
after the scan, for all steps at once.

Shapes: B batch, W hypotheses of each example, R = B W rows, T steps, S memory steps, E input
features, F features of h, M memory features.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from dlcore.nn.attention.scores import Attended, Attention, Product, Queries
from dlcore.nn.dense import multiply_rows
from dlcore.nn.recurrent.cell import Cell, Hooks, Params, zeros
from dlcore.nn.recurrent.scan import scan
from dlcore.types import Carry, PyTree


class Steps(NamedTuple):
    """The outputs of a decoder's steps.

    Attributes:
        vectors: h~, or h without attention, [R, T, F].
        states: h, [R, T, F].
        contexts: c, [R, T, M]; None without attention.
        weights: the attention weights [R, T, S], exactly 0 at padding; None without attention.
    """

    vectors: jax.Array
    states: jax.Array
    contexts: jax.Array | None = None
    weights: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Decoder(Cell):
    """A stack of cells with attention on top.

    The parameters of the cells are `layer_0` and so on; with attention, `attention` holds those of
    the attention, and `combine_kernel` (M + F, F) is W. With input feeding the lowest cell has
    E + F inputs, h~ last.

    The carry holds the cells' carries as `layers` and, with attention, the number of steps so far
    as `step` [R], the sum of their weights as `covered` [R, S] and, with input feeding, the last h~
    as `feed` [R, F].

    Attributes:
        features: F, the width of the highest cell's output.
        cells: the cell of each layer, from the lowest up; none has running statistics.
        attention: the attention; None for a decoder without.
        memory: M.
        input_feeding: whether the next step gets h~ as an input.
    """

    cells: tuple[Cell, ...]
    attention: Attention | None = None
    memory: int = 0
    input_feeding: bool = False

    @property
    def sequential(self) -> bool:
        """Returns whether a step needs the attention of earlier steps."""
        return self.attention is not None and (self.input_feeding or self.attention.coverage)

    @property
    def recurrent(self) -> tuple[str, ...]:
        names = [
            f"layer_{i}/{name}" for i, cell in enumerate(self.cells) for name in cell.recurrent
        ]
        names += [f"layer_{i}/input_kernel" for i in range(1, len(self.cells))]
        if self.attention is not None:
            names += [f"attention/{name}" for name in self.attention.matrices] + ["combine_kernel"]
        return (*names, "feed_kernel") if self.input_feeding else tuple(names)

    def init(self, key: jax.Array, inputs: int) -> dict[str, PyTree]:
        """Draws the parameters for E = `inputs`.

        Raises:
            InputError: as for `Attention.init`.
        """
        attention_key, combine_key, *keys = jax.random.split(key, 2 + len(self.cells))
        params: dict[str, PyTree] = {}
        width = inputs + (self.features if self.input_feeding else 0)
        for i, (cell, cell_key) in enumerate(zip(self.cells, keys, strict=True)):
            params[f"layer_{i}"] = cell.init(cell_key, width)
            width = cell.output_features
        if self.attention is not None:
            draw, shape = nn.initializers.lecun_normal(), (self.memory + width, self.features)
            params["combine_kernel"] = draw(combine_key, shape)
            if attention_params := self.attention.init(attention_key, width, self.memory):
                params["attention"] = attention_params
        return params

    def initial_carry(self, batch: int, memory_steps: int = 0) -> Carry:
        """Returns the carry before the first step, for R = `batch` and S = `memory_steps`."""
        layers = {f"layer_{i}": cell.initial_carry(batch) for i, cell in enumerate(self.cells)}
        if self.attention is None:
            return {"layers": layers}
        feed = {"feed": zeros(batch, self.features)} if self.input_feeding else {}
        step = jnp.zeros(batch, jnp.int32)
        return {"layers": layers, "step": step, "covered": zeros(batch, memory_steps)} | feed

    def run(
        self,
        params: Params,
        carry: Mapping[str, PyTree],
        x: jax.Array,
        attended: Attended | None,
        *,
        kept: tuple[jax.Array, ...] = (),
    ) -> tuple[Carry, Steps]:
        """Runs over T steps.

        Args:
            params: the parameters, as `init` returns them.
            carry: the carry before these steps, see `initial_carry`.
            x: [R, T, E].
            attended: the result of `attention.prepare` for B examples; row b W + w of x attends to
                example b.
            kept: dropout masks (R, T, width), of 0 and 1 / (1 - rate), for the inputs of all layers
                except the lowest; none by default.

        Returns:
            The carry after the last step, and the outputs of the steps.
        """
        x, kept = x.swapaxes(0, 1), tuple(mask.swapaxes(0, 1) for mask in kept)
        if self.sequential:
            flat = flatten_dict(params, sep="/") | {"attended": attended}
            input_kernel = flat.pop("layer_0/input_kernel")
            if self.input_feeding:
                # The gradient of this kernel will have the type of the carry.
                feed_kernel = input_kernel[x.shape[-1] :]
                flat["feed_kernel"] = feed_kernel.astype(carry["feed"].dtype)
            prepared = (self.project(params, x), kept)
            last, steps = scan(self, flat, dict(carry), prepared)
            return last, jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), steps)
        layers = {}
        for i, cell in enumerate(self.cells):
            name = f"layer_{i}"
            x = x * kept[i - 1] if i and kept else x
            with jax.named_scope(name):
                start, projected = carry["layers"][name], cell.project(params[name], x)
                layers[name], x = scan(cell, params[name], start, projected)
        x = x.swapaxes(0, 1)
        if attended is None:
            return {"layers": layers}, Steps(x, x)
        flat = flatten_dict(params, sep="/")
        carry = {**carry, "layers": layers}
        return self._attend(params, carry, x, attended, lambda name, h: h @ flat[name])

    def project(self, params: Params, x: jax.Array) -> jax.Array:
        """Multiplies x (..., E) by the first E rows of the lowest cell's input kernel."""
        return multiply_rows(x, params["layer_0"]["input_kernel"][: x.shape[-1]])

    def step(
        self, params: Params, carry: Carry, projected: PyTree, hooks: Hooks
    ) -> tuple[Carry, Steps]:
        """Runs one step on the flat parameters that `run` gives to `scan`.

        The output is a `Steps` without the axis T.
        """
        params = unflatten_dict(params, sep="/")
        product, kept = projected
        if self.input_feeding:
            product += hooks.product("feed_kernel", carry["feed"])
        layers = {}

        def layer(i: int, product: jax.Array) -> jax.Array:
            cell, name = self.cells[i], f"layer_{i}"
            cell_params = params[name] | {"input_kernel": KnownProduct(product)}
            cell_hooks = Hooks(lambda matrix, h: hooks.product(f"{name}/{matrix}", h))
            with jax.named_scope(name):
                projected = cell.project(cell_params, product)
                layers[name], h = cell.step(
                    cell_params, carry["layers"][name], projected, cell_hooks
                )
            return h

        h = layer(0, product)
        for i in range(1, len(self.cells)):
            x = h * kept[i - 1] if kept else h
            h = layer(i, hooks.product(f"layer_{i}/input_kernel", x))
        attended = params["attended"]
        carry, steps = self._attend(
            params, carry | {"layers": layers}, h[:, None], attended, by_rows(hooks.product)
        )
        return carry, jax.tree.map(lambda leaf: leaf[:, 0], steps)

    def _attend(
        self,
        params: Params,
        carry: Mapping[str, PyTree],
        states: jax.Array,
        attended: Attended,
        product: Product,
    ) -> tuple[Carry, Steps]:
        """Attends from the states [R, T, F] to the memory; with coverage T is 1."""
        assert self.attention is not None
        batch, (rows, steps) = len(attended.mask), states.shape[:2]
        positions = carry["step"][:, None] + jnp.arange(steps, dtype=jnp.int32)[None]
        covered = carry["covered"][:, None] if self.attention.coverage else None

        def folded(leaf: jax.Array) -> jax.Array:
            return leaf.reshape(batch, -1, *leaf.shape[2:])

        with jax.named_scope("attention"):
            context, weights = self.attention(
                params.get("attention", {}),
                jax.tree.map(folded, Queries(states, positions, covered)),
                attended,
                product=lambda name, x: product(f"attention/{name}", x),
            )
        context = context.reshape(rows, steps, -1)
        weights = weights.reshape(rows, steps, -1)
        combined = jnp.concatenate([context, states], axis=-1)
        vectors = jnp.tanh(product("combine_kernel", combined))
        after = {"step": carry["step"] + steps, "covered": carry["covered"] + weights.sum(1)}
        if self.input_feeding:
            after["feed"] = vectors[:, -1]
        return dict(carry) | after, Steps(vectors, states, context, weights)


class KnownProduct:
    """A replacement of a cell's input kernel: `x @ kernel` returns a product computed before."""

    def __init__(self, product: jax.Array) -> None:
        self.product = product

    def __rmatmul__(self, x: jax.Array) -> jax.Array:
        return self.product


def by_rows(product: Product) -> Product:
    """Makes a product of matrices [R, F] accept arrays [..., F]."""

    def reshaped(name: str, x: jax.Array) -> jax.Array:
        return product(name, x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)

    return reshaped
