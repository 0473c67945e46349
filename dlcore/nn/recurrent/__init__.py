"""Recurrent nets: cells as pure functions, the scan that runs them, and layers made of them."""

from dlcore.nn.recurrent.cell import Carry, Cell
from dlcore.nn.recurrent.gru import GRU, GRUAfter
from dlcore.nn.recurrent.highway import Highway
from dlcore.nn.recurrent.layers import (
    MERGES,
    Bidirectional,
    Recurrent,
    RecurrentStack,
    repeat_input,
    reset_carry,
)
from dlcore.nn.recurrent.lstm import LSTM, AmidiLSTM, PeepholeLSTM, ProjectionLSTM
from dlcore.nn.recurrent.normalised import BatchNormLSTM, LayerNormLSTM, reverse_by_length
from dlcore.nn.recurrent.registry import CELLS, cell
from dlcore.nn.recurrent.scan import Noise, scan
from dlcore.nn.recurrent.turing import TuringMachine
from dlcore.nn.recurrent.vanilla import Vanilla

__all__ = [
    "CELLS",
    "GRU",
    "LSTM",
    "MERGES",
    "AmidiLSTM",
    "BatchNormLSTM",
    "Bidirectional",
    "Carry",
    "Cell",
    "GRUAfter",
    "Highway",
    "LayerNormLSTM",
    "Noise",
    "PeepholeLSTM",
    "ProjectionLSTM",
    "Recurrent",
    "RecurrentStack",
    "TuringMachine",
    "Vanilla",
    "cell",
    "repeat_input",
    "reset_carry",
    "reverse_by_length",
    "scan",
]
