"""The recurrent half of a decoder: a stack of cells whose highest state attends to a memory.

The state h finds a context c in the memory, and both give the attentional vector
h~ = tanh([c; h] W) (Luong et al. 2015, eq. 5), from which words are predicted. With input feeding
h~ is a part of the next step's input (section 3.3), which is close to the placement of Bahdanau et
al. 2015, where the context of the old state enters the cell.

Where a step needs nothing that attention found before it, the cells run over all steps first and
then all states attend at once. Input feeding and coverage need it: there one scan does all of a
step but the input product of what is known beforehand, and the gradients of its matrices are
taken after it, for all steps at once.

Shapes: B batch, W hypotheses of each example, R = B W rows, T steps, S places of the memory, E
input features, F features of h, M memory features.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from dlcore.nn.attention.scores import Attended, Attention, Product, Queries
from dlcore.nn.recurrent.cell import Cell, Hooks, zeros
from dlcore.nn.recurrent.scan import scan


class Steps(NamedTuple):
    """What the steps of a decoder give.

    Attributes:
        vectors: h~, or h without attention, [R, T, F].
        states: h, [R, T, F].
        contexts: [R, T, M]; None without attention.
        weights: the attention [R, T, S], exactly 0 at padding; None without.
    """

    vectors: jax.Array
    states: jax.Array
    contexts: Any = None
    weights: Any = None


@dataclasses.dataclass(frozen=True)
class Decoder(Cell):
    """Cells one on top of the other, and attention.

    Parameters: `layer_0`, ... hold those of the cells; with attention, `attention` its own and
    `combine_kernel` (M + F, F) is W. With input feeding the lowest cell has E + F inputs, h~ last.

    The carry holds `layers`, those of the cells, and, with attention, the number of steps so far
    `step` [R], the sum of their weights `covered` [R, S] and, with input feeding, `feed` [R, F],
    which is the last h~.

    Attributes:
        features: F, the width of the highest cell's output.
        cells: one for each layer, from the lowest up, without running statistics.
        attention: None for none.
        memory: M.
        input_feeding: whether h~ is fed to the next step.
    """

    cells: tuple[Cell, ...]
    attention: Attention | None = None
    memory: int = 0
    input_feeding: bool = False

    @property
    def sequential(self) -> bool:
        """Whether a step needs what attention found before it."""
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

    def init(self, key: jax.Array, inputs: int) -> dict[str, Any]:
        """As `Cell.init`, for E = `inputs`.

        Raises:
            InputError: as `Attention.init`.
        """
        attention_key, combine_key, *keys = jax.random.split(key, 2 + len(self.cells))
        params: dict[str, Any] = {}
        width = inputs + (self.features if self.input_feeding else 0)
        for i, (cell, cell_key) in enumerate(zip(self.cells, keys, strict=True)):
            params[f"layer_{i}"] = cell.init(cell_key, width)
            width = cell.output_features
        if self.attention is not None:
            draw, shape = nn.initializers.lecun_normal(), (self.memory + width, self.features)
            params["combine_kernel"] = draw(combine_key, shape)
            if of_attention := self.attention.init(attention_key, width, self.memory):
                params["attention"] = of_attention
        return params

    def initial_carry(self, batch: int, places: int = 0) -> dict[str, Any]:
        """The carry before the first step, for R = `batch` and S = `places`."""
        layers = {f"layer_{i}": cell.initial_carry(batch) for i, cell in enumerate(self.cells)}
        if self.attention is None:
            return {"layers": layers}
        feed = {"feed": zeros(batch, self.features)} if self.input_feeding else {}
        step = jnp.zeros(batch, jnp.int32)
        return {"layers": layers, "step": step, "covered": zeros(batch, places)} | feed

    def run(
        self,
        params: Mapping[str, Any],
        carry: Mapping[str, Any],
        x: jax.Array,
        attended: Attended | None,
        *,
        kept: tuple[jax.Array, ...] = (),
    ) -> tuple[dict[str, Any], Steps]:
        """Runs over T steps.

        Args:
            params: those of `init`.
            carry: that of `initial_carry`.
            x: [R, T, E].
            attended: what `attention.prepare` gave for B examples; row b W + w of x looks at b.
            kept: for each layer but the lowest a mask (R, T, width) of its input, of 0 and
                1 / (1 - rate); none by default.

        Returns:
            The carry after the last step, and what the steps gave.
        """
        x, kept = x.swapaxes(0, 1), tuple(mask.swapaxes(0, 1) for mask in kept)
        if self.sequential:
            flat = flatten_dict(params, sep="/") | {"attended": attended}
            input_kernel = flat.pop("layer_0/input_kernel")
            if self.input_feeding:
                # In the carry's type, which its gradient will have.
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

    def project(self, params: Mapping[str, Any], x: jax.Array) -> jax.Array:
        """The product of x (..., E) with the lowest cell's input kernel, without the rest of it."""
        return x @ params["layer_0"]["input_kernel"][: x.shape[-1]]

    def step(
        self, params: Mapping[str, Any], carry: Any, projected: Any, hooks: Hooks
    ) -> tuple[dict[str, Any], Any]:
        """One step, on the flat parameters of `scan`; y are the `Steps` of T = 1, without T."""
        params = unflatten_dict(params, sep="/")
        product, kept = projected
        if self.input_feeding:
            product += hooks.product("feed_kernel", carry["feed"])
        layers = {}

        def layer(i: int, product: jax.Array) -> jax.Array:
            cell, name = self.cells[i], f"layer_{i}"
            known = params[name] | {"input_kernel": _Known(product)}
            inside = Hooks(lambda matrix, h: hooks.product(f"{name}/{matrix}", h))
            with jax.named_scope(name):
                projected = cell.project(known, product)
                layers[name], h = cell.step(known, carry["layers"][name], projected, inside)
            return h

        h = layer(0, product)
        for i in range(1, len(self.cells)):
            x = h * kept[i - 1] if kept else h
            h = layer(i, hooks.product(f"layer_{i}/input_kernel", x))
        attended = params["attended"]
        carry, steps = self._attend(
            params, carry | {"layers": layers}, h[:, None], attended, _by_rows(hooks.product)
        )
        return carry, jax.tree.map(lambda leaf: leaf[:, 0], steps)

    def _attend(
        self,
        params: Mapping[str, Any],
        carry: Mapping[str, Any],
        states: jax.Array,
        attended: Attended,
        product: Product,
    ) -> tuple[dict[str, Any], Steps]:
        """The states [R, T, F] look at the memory; with coverage T is 1."""
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
        both = jnp.concatenate([context, states], axis=-1)
        vectors = jnp.tanh(product("combine_kernel", both))
        after = {"step": carry["step"] + steps, "covered": carry["covered"] + weights.sum(1)}
        if self.input_feeding:
            after["feed"] = vectors[:, -1]
        return dict(carry) | after, Steps(vectors, states, context, weights)


class _Known:
    """Stands for a cell's input kernel where the product with it is known: it is `x @ kernel`."""

    def __init__(self, product: jax.Array) -> None:
        self.product = product

    def __rmatmul__(self, x: jax.Array) -> jax.Array:
        return self.product


def _by_rows(product: Product) -> Product:
    """A product of matrices [R, F] for arrays [..., F]."""

    def reshaped(name: str, x: jax.Array) -> jax.Array:
        return product(name, x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)

    return reshaped
