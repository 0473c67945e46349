"""Recurrent layers: cells run over padded sequences, in one direction or both, and stacked.

All take and give sequences [B, T, D]; `lengths` says how many steps of each are real. What lies
past them, whatever it is, changes no output, no carry and no gradient, and gives 0; a sequence of
length 0 leaves the carry as it was.

Shapes: B batch, T time, D input features, F output features, H the width of the recurrent state.
"""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore import errors
from dlcore.nn.dropout import Dropout
from dlcore.nn.recurrent.cell import Carry, Cell, Params
from dlcore.nn.recurrent.normalised import reverse_by_length
from dlcore.nn.recurrent.scan import Noise, scan
from dlcore.nn.sequences import length_mask

Merge = Literal["concat", "sum"]


class Recurrent(nn.Module):
    """A cell run over time.

    Parameters are the cell's, by its names; its running statistics, if it has any, are in the
    collection "batch_stats".

    Attributes:
        cell: the cell.
        reverse: whether to go from the last real step to the first.
        state_dropout: variational dropout on what the recurrent matrices see, one mask for all
            steps (Gal & Ghahramani 2016).
        candidate_dropout: dropout on what each step adds to the carry (Semeniuta et al. 2016).
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
            carry: what to start from; by default the cell's start.
            lengths: int [B], in 0..T; by default T.
            detach: after how many steps the gradient through the carry is cut; None never.
            train: whether there is dropout, and statistics are the batch's.

        Returns:
            The carry after the last step and the outputs [B, T, F].

        Raises:
            InputError: when a rate of dropout is outside [0, 1].
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
            # A gradient of 0 times padding that is not finite would be NaN.
            x = jnp.where(mask[..., None], x, 0)
        # Statistics of a step are over the sequences that take it together: all start together.
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
        else:  # `param` compares their shapes and takes what there is.
            start = jax.tree.map(jnp.zeros_like, jax.eval_shape(draw, jax.random.key(0)))
        return {
            name: self.param(name, lambda key, value=value: value) for name, value in start.items()
        }

    def _noise(self, params: Params, batch: int, steps: int, train: bool) -> Noise:
        width = params[self.cell.recurrent[0]].shape[0]
        state = Dropout(self.state_dropout)(jnp.ones((batch, width)), train)
        ones = jnp.ones((batch, steps, self.cell.features))
        candidate = Dropout(self.candidate_dropout)(ones, train).swapaxes(0, 1)
        return Noise(
            state=state if train and self.state_dropout else None,
            candidate=candidate if train and self.candidate_dropout else None,
        )


class Bidirectional(nn.Module):
    """Two nets of one kind of cell, one in each direction (Schuster & Paliwal 1997).

    Attributes:
        cell: the cell; each direction has its own parameters.
        merge: "concat": the outputs side by side, forwards first; "sum": added.
        state_dropout: see `Recurrent`.
        candidate_dropout: see there.
    """

    cell: Cell
    merge: Merge = "concat"
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
        """As `Recurrent`; the carry is {"forward": ..., "backward": ...}.

        Raises:
            InputError: for an unknown merge, and as `Recurrent`.
        """
        if self.merge not in ("concat", "sum"):
            raise errors.choose("merge", self.merge, ("concat", "sum"))
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
        forward, backward = outputs
        if self.merge == "sum":
            return carries, forward + backward
        return carries, jnp.concatenate(outputs, axis=-1)


class RecurrentStack(nn.Module):
    """Recurrent layers one on top of the other.

    Attributes:
        cells: one for each layer, from the lowest up.
        bidirectional: whether each layer runs in both directions.
        merge: see `Bidirectional`.
        residual: whether each layer but the lowest adds its input to its output; they must be of
            one width.
        dropout: the share of values that is dropped between the layers (Zaremba et al. 2014),
            neither before the lowest nor after the highest.
        variational: whether that drops the same features at all steps (Gal & Ghahramani 2016).
        state_dropout: see `Recurrent`.
        candidate_dropout: see there.
    """

    cells: tuple[Cell, ...]
    bidirectional: bool = False
    merge: Merge = "concat"
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
        carry: dict[str, Any] | None = None,
        lengths: jax.Array | None = None,
        detach: int | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], jax.Array, dict[str, jax.Array]]:
        """As `Recurrent`; the carry is that of `initial_carry`.

        Returns:
            The carry after the last step, the outputs of the highest layer [B, T, F] and those of
            each layer, "layer_0" the lowest.

        Raises:
            ValueError: when `residual` meets widths that differ.
            InputError: as `Bidirectional`.
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
    def initial_carry(self, batch: int, length: int | None = None) -> dict[str, Any]:
        """What the layers start from, each leaf [B, ...], for any length; needs no parameters."""
        del length

        def layer(cell: Cell) -> Any:
            if self.bidirectional:
                return {way: cell.initial_carry(batch) for way in ("forward", "backward")}
            return cell.initial_carry(batch)

        return {f"layer_{i}": layer(cell) for i, cell in enumerate(self.cells)}


def reset_carry(carry: Any, initial: Any, reset: jax.Array) -> Any:
    """The carry, but the initial one in the rows that start a new sequence.

    Args:
        carry: leaves [B, ...].
        initial: of the same structure.
        reset: bool [B].
    """

    def leaf(start: jax.Array, now: jax.Array) -> jax.Array:
        return jnp.where(reset.reshape(-1, *(1,) * (now.ndim - 1)), start, now)

    return jax.tree.map(leaf, initial, carry)


def repeat_input(x: jax.Array, steps: int) -> jax.Array:
    """The same input [B, D] at each of `steps` steps, [B, T, D]."""
    return jnp.broadcast_to(x[:, None], (x.shape[0], steps, x.shape[1]))
