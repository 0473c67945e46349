"""Maps sequences to sequences of the same length, such as an algorithm's inputs to its outputs.

Shapes: B batch, T steps, D inputs, H features of the cell, O outputs.
"""

import math

import flax.linen as nn
import jax

from dlcore.nn import Dense
from dlcore.nn.recurrent.cell import Cell
from dlcore.nn.recurrent.layers import Recurrent


class Transducer(nn.Module):
    """A recurrent net with a dense layer at each step.

    Attributes:
        cell: the recurrent cell, such as `TuringMachine`.
        outputs: O.
    """

    cell: Cell
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        """Maps inputs [B, T, D] to logits [B, T, O].

        The net reads forwards, so that padding on the right changes no logit before it.

        Args:
            x: the inputs.
            lengths: int [B], the number of steps of each sequence; the logits past them are
                computed from zeros.
        """
        _, y = Recurrent(self.cell, name="recurrent")(x, lengths=lengths)
        return Dense(self.outputs, name="output")(y)


def lstm_features(parameters: int, inputs: int, outputs: int) -> int:
    """Returns H of the LSTM with which a `Transducer` comes nearest to a number of parameters.

    It has 4 H (D + H + 1) + O (H + 1) parameters.

    >>> lstm_features(4 * 30 * (9 + 30 + 1) + 8 * (30 + 1), 9, 8)
    30
    """
    slope = 4 * (inputs + 1) + outputs
    root = (math.sqrt(slope * slope + 16 * max(0, parameters - outputs)) - slope) / 8
    return max(1, round(root))
