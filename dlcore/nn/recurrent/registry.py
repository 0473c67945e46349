"""The recurrent cells by name."""

import functools
import inspect
from collections.abc import Callable

from dlcore import errors
from dlcore.nn.recurrent.cell import Cell
from dlcore.nn.recurrent.gru import GRU, GRUAfter
from dlcore.nn.recurrent.highway import Highway
from dlcore.nn.recurrent.lstm import LSTM, AmidiLSTM, PeepholeLSTM, ProjectionLSTM
from dlcore.nn.recurrent.normalised import BatchNormLSTM, LayerNormLSTM
from dlcore.nn.recurrent.vanilla import Vanilla

# The recurrent cells by name.
CELLS: dict[str, Callable[..., Cell]] = {
    "rnn": Vanilla,
    "irnn": functools.partial(Vanilla, activation="relu"),
    "lstm": LSTM,
    "lstm_peephole": PeepholeLSTM,
    "lstm_projection": ProjectionLSTM,
    "lstm_amidi": AmidiLSTM,
    "lstm_layer_norm": LayerNormLSTM,
    "lstm_batch_norm": BatchNormLSTM,
    "gru": GRU,
    "gru_after": GRUAfter,
    "highway": Highway,
}


def cell(name: str, features: int, **options: float | str | None) -> Cell:
    """Makes the named cell.

    Args:
        name: one of `CELLS`.
        features: the width of its state.
        **options: the cell's other attributes.

    Raises:
        InputError: for an unknown name or option, or a width, depth or number of steps below 1.

    >>> cell("highway", 64, depth=3)
    Highway(features=64, depth=3, transform_bias=-2.0)
    """
    make = errors.pick("cell", name, CELLS)
    possible = set(inspect.signature(make).parameters) - {"features"}
    for option, value in {"features": features, **options}.items():
        if option not in possible | {"features"}:
            raise errors.choose(f"option of the cell {name!r}", option, possible)
        if isinstance(value, int) and value < 1:
            raise errors.InputError(f"{option}={value} of the cell {name!r} is below 1; raise it")
    return make(features, **options)
