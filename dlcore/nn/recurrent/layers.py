"""Recurrent layers run cells over padded sequences, in one direction or both, alone or stacked.

All map sequences [B, T, D] to sequences; `lengths` holds the number of real steps of each. Padding,
whatever it contains, changes no other output, carry or gradient, and its output is 0; a sequence of
length 0 leaves the carry unchanged.

Shapes: B batch, T time, D input features, F output features, H the width of the recurrent state.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore import errors
from dlcore.nn.dropout import Dropout
from dlcore.nn.recurrent.cell import Carry, Cell, Params
from dlcore.nn.recurrent.normalised import reverse_by_length
from dlcore.nn.recurrent.scan import Noise, scan
from dlcore.nn.sequences import length_mask
from dlcore.types import Activations, PyTree

# How the outputs of the two directions [B, T, F] become one.
MERGES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "concat": lambda forward, backward: jnp.concatenate([forward, backward], axis=-1),
    "sum": jnp.add,
    "product": jnp.multiply,
    "mean": lambda forward, backward: (forward + backward) / 2,
}
# The carry of each layer by name, or in a bidirectional layer that of each direction.
StackCarry = dict[str, PyTree]


class Recurrent(nn.Module):
    """A layer that runs a cell over time.

    The parameters have the cell's names; the cell's running statistics, if it has any, are in the
    collection "batch_stats".

    Attributes:
        cell: the cell.
        reverse: whether to run from the last real step to the first.
        state_dropout: the rate of variational dropout on the inputs of the recurrent matrices, with
            one mask for all steps (Gal & Ghahramani 2016).
        candidate_dropout: the rate of dropout on the values that each step adds to the carry
            (Semeniuta et al. 2016).
    """

    cell: Cell
    reverse: bool = False
    state_dropout: float = 0.0
    candidate_dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        carry: Carry | None = None,
        lengths: jax.Array | None = None,
        detach: int | None = None,
        train: bool = False,
    ) -> tuple[Carry, jax.Array]:
        """Runs over x; draws from the stream "dropout".

        Args:
            x: [B, T, D].
            carry: the carry before the first step; by default the cell's initial carry.
            lengths: int [B], in 0..T; by default T.
            detach: the number of steps after which the gradient through the carry is cut; None
                never cuts it.
            train: whether to apply dropout and to use statistics of the batch.

        Returns:
            The carry after the last step and the outputs [B, T, F].

        Raises:
            InputError: when a dropout rate is outside [0, 1].
        """
        cell, (batch, steps, inputs) = self.cell, x.shape
        params = self._parameters(inputs)
        stats = {
            name: self.variable("batch_stats", name, lambda value=value: value)
            for name, value in cell.init_state().items()
        }
        state = {name: variable.value for name, variable in stats.items()}
        x, mask = x.swapaxes(0, 1), None
        if lengths is not None:
            mask = length_mask(lengths, steps).T
            # 0 times padding that is not finite would make the gradient NaN.
            x = jnp.where(mask[..., None], x, 0)
        # The sequences that take a step together share its statistics, so all must start together.
        flipped = self.reverse and bool(stats)
        flip = functools.partial(
            reverse_by_length, lengths=jnp.full(batch, steps) if lengths is None else lengths
        )
        carry, outputs = scan(
            cell,
            params,
            cell.initial_carry(batch) if carry is None else carry,
            cell.prepare(params, state, flip(x) if flipped else x, mask, train),
            mask=mask,
            reverse=self.reverse and not flipped,
            detach=detach,
            noise=self._noise(params, batch, steps, train),
        )
        y, state = cell.finish(state, outputs, train)
        y = flip(y) if flipped else y
        if train and not self.is_initializing():
            for name, variable in stats.items():
                variable.value = state[name]
        return carry, y.swapaxes(0, 1)

    def _parameters(self, inputs: int) -> Params:
        draw = functools.partial(self.cell.init, inputs=inputs)
        if self.is_initializing():
            start = draw(self.make_rng("params"))
        else:  # `param` compares their shapes and returns the existing parameters.
            start = jax.tree.map(jnp.zeros_like, jax.eval_shape(draw, jax.random.key(0)))
        return {
            name: self.param(name, lambda key, value=value: value) for name, value in start.items()
        }

    def _noise(self, params: Params, batch: int, steps: int, train: bool) -> Noise:
        width = params[self.cell.recurrent[0]].shape[0]
        noises = []
        for rate, shape in (
            (self.state_dropout, (batch, width)),
            (self.candidate_dropout, (batch, steps, self.cell.features)),
        ):
            # Dropout gives its input back where it does not draw.
            ones = jnp.ones(shape)
            noise = Dropout(rate)(ones, train)
            noises.append(None if noise is ones else noise)
        state, candidate = noises
        return Noise(state, None if candidate is None else candidate.swapaxes(0, 1))


class Bidirectional(nn.Module):
    """Two nets of one kind of cell, one in each direction (Schuster & Paliwal 1997).

    Attributes:
        cell: the cell; each direction has its own parameters.
        merge: one of `MERGES`: "concat" puts the outputs side by side, forwards first; "sum",
            "product" and "mean" combine each feature.
        state_dropout: see `Recurrent`.
        candidate_dropout: see there.
    """

    cell: Cell
    merge: str = "concat"
    state_dropout: float = 0.0
    candidate_dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        carry: dict[str, Carry] | None = None,
        lengths: jax.Array | None = None,
        detach: int | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Carry], jax.Array]:
        """Runs over x as `Recurrent` does, with the carry {"forward": ..., "backward": ...}.

        Raises:
            InputError: for an unknown merge, and as for `Recurrent`.
        """
        merged = errors.pick("merge", self.merge, MERGES)
        carries, outputs = {}, []
        for name in ("forward", "backward"):
            layer = Recurrent(
                self.cell,
                reverse=name == "backward",
                state_dropout=self.state_dropout,
                candidate_dropout=self.candidate_dropout,
                name=name,
            )
            carries[name], y = layer(
                x,
                carry=None if carry is None else carry[name],
                lengths=lengths,
                detach=detach,
                train=train,
            )
            outputs.append(y)
        return carries, merged(*outputs)


class RecurrentStack(nn.Module):
    """A stack of recurrent layers.

    Attributes:
        cells: the cell of each layer, from the lowest up.
        bidirectional: whether each layer runs in both directions.
        merge: see `Bidirectional`.
        residual: whether each layer except the lowest adds its input to its output, which must have
            the same width.
        dropout: the share of values dropped between the layers (Zaremba et al. 2014), not before
            the lowest or after the highest.
        variational: whether `dropout` drops the same features at all steps (Gal & Ghahramani 2016).
        state_dropout: see `Recurrent`.
        candidate_dropout: see there.
    """

    cells: tuple[Cell, ...]
    bidirectional: bool = False
    merge: str = "concat"
    residual: bool = False
    dropout: float = 0.0
    variational: bool = False
    state_dropout: float = 0.0
    candidate_dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        carry: StackCarry | None = None,
        lengths: jax.Array | None = None,
        detach: int | None = None,
        train: bool = False,
    ) -> tuple[StackCarry, jax.Array, Activations]:
        """Runs over x as `Recurrent` does, with the carry of `initial_carry`.

        Returns:
            The carry after the last step, the outputs of the highest layer [B, T, F] and those of
            each layer, "layer_0" the lowest.

        Raises:
            ValueError: when widths differ with `residual`.
            InputError: as for `Bidirectional`.
        """
        carries, activations = {}, {}
        for i, cell in enumerate(self.cells):
            name = f"layer_{i}"
            noise = {
                "state_dropout": self.state_dropout,
                "candidate_dropout": self.candidate_dropout,
            }
            layer = (
                Bidirectional(cell, merge=self.merge, name=name, **noise)
                if self.bidirectional
                else Recurrent(cell, name=name, **noise)
            )
            below = x
            if i > 0:
                x = Dropout(self.dropout, broadcast_dims=(1,) if self.variational else ())(x, train)
            carries[name], x = layer(
                x,
                carry=None if carry is None else carry[name],
                lengths=lengths,
                detach=detach,
                train=train,
            )
            if self.residual and i > 0:
                if x.shape != below.shape:
                    raise ValueError(
                        f"{name} maps {below.shape[-1]} features to {x.shape[-1]}; with residuals "
                        "all layers must have one width"
                    )
                x = x + below
            activations[name] = x
        return carries, x, activations

    @nn.nowrap
    def initial_carry(self, batch: int, length: int | None = None) -> StackCarry:
        """Returns the carry before the first step, each leaf [B, ...]; needs no parameters."""
        del length

        def layer(cell: Cell) -> Carry | dict[str, Carry]:
            if self.bidirectional:
                return {way: cell.initial_carry(batch) for way in ("forward", "backward")}
            return cell.initial_carry(batch)

        return {f"layer_{i}": layer(cell) for i, cell in enumerate(self.cells)}


def reset_carry(carry: PyTree, initial: PyTree, reset: jax.Array) -> PyTree:
    """Replaces the carry by the initial one in the rows that start a new sequence.

    Args:
        carry: a tree of arrays [B, ...].
        initial: a tree of the same structure.
        reset: bool [B], true where a new sequence starts.

    >>> carry = {"h": jnp.array([[1.0], [2.0]])}
    >>> reset_carry(carry, {"h": jnp.zeros((2, 1))}, jnp.array([True, False]))["h"].tolist()
    [[0.0], [2.0]]
    """

    def leaf(start: jax.Array, now: jax.Array) -> jax.Array:
        return jnp.where(reset.reshape(-1, *(1,) * (now.ndim - 1)), start, now)

    return jax.tree.map(leaf, initial, carry)


def repeat_input(x: jax.Array, steps: int) -> jax.Array:
    """Repeats an input [B, D] at each of `steps` steps, [B, T, D]."""
    return jnp.broadcast_to(x[:, None], (x.shape[0], steps, x.shape[1]))
