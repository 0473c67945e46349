"""Models of polyphonic music: a recurrent network determines the law of the next chord.

The source is Boulanger-Lewandowski, Bengio & Vincent 2012: "Modeling temporal dependencies in
high-dimensional sequences". The chord of a step follows a law (`models.chords`), whose parameters
the network computes from all chords before it.

Shapes: B pieces, T steps, V pitches, F features of the network.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlcore import parallel
from dlcore.models.chords import DRAWN, Law, Output
from dlcore.nn import Dropout
from dlcore.nn.recurrent import RecurrentStack
from dlcore.types import Activations, Carry


class MusicModel(nn.Module):
    """A recurrent network over a piano roll, with the law of each chord given those before.

        law, activations = model.apply(variables, roll, lengths)
        nats = -law.log_prob(roll, step_keys(key, *roll.shape[:2]))

    Attributes:
        body: the layers.
        output: makes the law.
        dropout: the share of values dropped before and after the layers.
    """

    body: RecurrentStack
    output: Output
    dropout: float = 0.0

    def setup(self) -> None:
        self._below, self._above = Dropout(self.dropout), Dropout(self.dropout)

    def __call__(
        self, roll: jax.Array, lengths: jax.Array | None = None, *, train: bool = False
    ) -> tuple[Law, Activations]:
        """Returns the laws of all chords given the real ones before; draws from "dropout".

        Args:
            roll: bits in the type to compute in, [B, T, V].
            lengths: the number of steps of each piece, int [B]; by default T.
            train: whether there is dropout.

        Returns:
            The law, for positions [B, T], and the outputs of the layers.
        """
        before = jnp.pad(roll[:, :-1], ((0, 0), (1, 0), (0, 0)))
        x = _marked(before, jnp.arange(roll.shape[1])[None] == 0)
        _, y, activations = self.body(self._below(x, train), lengths=lengths, train=train)
        return self.output(self._above(y, train)), activations

    @nn.nowrap
    def initial_carry(self, batch: int) -> Carry:
        """Returns the carry before the first chord, each leaf [B, ...]."""
        return self.body.initial_carry(batch)

    def next_law(self, carry: Carry, before: jax.Array, first: jax.Array) -> tuple[Carry, Law]:
        """Returns the carry and the law of the next chord, for positions [B].

        Args:
            carry: the carry from `initial_carry`, or from the step before.
            before: the chord of the step before, [B, V]; zeros where there is none.
            first: whether there is no step before, a scalar.
        """
        x = _marked(before[:, None], first.reshape(1, 1))
        carry, y, _ = self.body(x, carry=carry)
        return carry, self.output(y[:, 0])


def _marked(before: jax.Array, first: jax.Array) -> jax.Array:
    """Returns chords [B, T, V] with a further bit at the start of a piece, [B, T, V + 1]."""
    mark = jnp.broadcast_to(first[..., None], (*before.shape[:2], 1)).astype(before.dtype)
    return jnp.concatenate([before, mark], axis=-1)


def step_keys(rng: jax.Array, rows: int, steps: int) -> jax.Array:
    """Returns a key for each step of the local rows, [B, T], which does not depend on padding."""
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    return jax.vmap(fold, (0, None))(parallel.row_keys(rng, rows), jnp.arange(steps))


def compose(
    model: MusicModel,
    variables: nn.FrozenDict,
    rng: jax.Array,
    given: jax.Array,
    *,
    temperature: float = 1.0,
) -> jax.Array:
    """Draws pieces step by step and returns them as bits float32 [B, T, V].

    The notes given for a step are not foreseen: the steps before it are drawn without them.

    Args:
        model: the model.
        variables: trained variables.
        rng: the key.
        given: the given value of each pitch of each step, int [B, T, V]: 0, 1 or `chords.DRAWN`.
        temperature: see `Law.draw`.
    """
    batch, steps, pitches = given.shape
    kind = jnp.result_type(*jax.tree.leaves(variables["params"]))
    keys = step_keys(rng, batch, steps)

    def step(
        state: tuple[Carry, jax.Array], x: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[Carry, jax.Array], jax.Array]:
        carry, before = state
        number, keys, given = x
        after, law = model.apply(variables, carry, before, number == 0, method="next_law")
        after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, carry)
        chord = law.draw(keys, given, temperature)
        return (after, chord.astype(kind)), chord

    start = model.initial_carry(batch), jnp.zeros((batch, pitches), kind)
    xs = jnp.arange(steps), keys.T, given.swapaxes(0, 1)
    _, found = jax.lax.scan(step, start, xs)
    return found.swapaxes(0, 1)


def given_notes(roll: jax.Array) -> jax.Array:
    """Returns the given values, int8 [B, T, V], of pieces with some known notes.

    The highest notes are the melody: there is silence above them, and all pitches below are drawn
    except the known notes. Steps without a note are drawn as a whole.

    Args:
        roll: the bits of the known notes, [B, T, V].
    """
    bits = roll.astype(jnp.int32)
    reached = jax.lax.cumsum(bits, axis=bits.ndim - 1, reverse=True) > 0
    silent = jnp.broadcast_to(bits.sum(-1, keepdims=True) == 0, bits.shape)
    told = jnp.where(reached, jnp.where(bits > 0, 1, DRAWN), 0)
    return jnp.where(silent, DRAWN, told).astype(jnp.int8)
