"""Parameters of cells to and from PyTorch's and Flax's layouts, without either library.

The cells that these have, and so the ones that convert, are `Vanilla`, `LSTM`, `GRUAfter` and, in
PyTorch, `ProjectionLSTM`. PyTorch has the gates in rows and two biases, of which only the sum
matters, but for the candidate of its GRU. Flax has one small kernel per gate. Both name the update
gate of the GRU by what it keeps, z = 1 - u; as sigmoid(-x) = 1 - sigmoid(x), its weights and biases
change their sign.

Shapes: D inputs, H features, P outputs, G gates times features.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from dlcore.errors import InputError
from dlcore.nn.recurrent.cell import Cell, Params
from dlcore.nn.recurrent.gru import GRUAfter
from dlcore.nn.recurrent.lstm import LSTM, ProjectionLSTM
from dlcore.nn.recurrent.vanilla import Vanilla

Arrays = Mapping[str, Any]

# The gates in the order of their blocks; PyTorch's and Flax's agree in order and meaning.
_GATES: dict[type[Cell], tuple[str, ...]] = {
    Vanilla: ("",),
    LSTM: ("i", "f", "g", "o"),
    ProjectionLSTM: ("i", "f", "g", "o"),
    GRUAfter: ("r", "z", "n"),
}
_PYTORCH = (Vanilla, LSTM, ProjectionLSTM, GRUAfter)
_FLAX = (Vanilla, LSTM, GRUAfter)


def to_pytorch(cell: Cell, params: Params) -> dict[str, np.ndarray]:
    """The parameters as `torch.nn.RNN`, `LSTM` and `GRU` name them, without the layer's suffix.

    Returns:
        `weight_ih` (G, D), `weight_hh` (G, P), `bias_ih` (G,), `bias_hh` (G,) and for a projection
        `weight_hr` (P, H). `bias_hh` is 0, but for the candidate of a GRU.

    Raises:
        InputError: for a cell that PyTorch does not have.
    """
    _require(cell, _PYTORCH, "PyTorch")
    bias = np.asarray(params["bias"])
    arrays = {
        "weight_ih": _signed(cell, params["input_kernel"]).T,
        "weight_hh": _signed(cell, params["recurrent_kernel"]).T,
        "bias_ih": _signed(cell, bias),
        "bias_hh": np.zeros_like(bias),
    }
    if isinstance(cell, GRUAfter):
        arrays["bias_hh"][2 * cell.features :] = params["recurrent_bias"]
    if isinstance(cell, ProjectionLSTM):
        arrays["weight_hr"] = np.asarray(params["projection_kernel"]).T
    # Copies in C order, which `torch.from_numpy` takes without a warning.
    return {name: np.array(array, order="C") for name, array in arrays.items()}


def from_pytorch(cell: Cell, arrays: Arrays) -> dict[str, jax.Array]:
    """The cell's parameters from what `to_pytorch` gives.

    Raises:
        InputError: for a cell that PyTorch does not have, or arrays that are not the cell's.
    """
    arrays = _fitting(cell, arrays, to_pytorch, "weight_ih", axis=1)
    bias, recurrent_bias = arrays["bias_ih"].copy(), arrays["bias_hh"]
    params = {
        "input_kernel": _signed(cell, arrays["weight_ih"].T),
        "recurrent_kernel": _signed(cell, arrays["weight_hh"].T),
    }
    if isinstance(cell, GRUAfter):
        gates = 2 * cell.features
        bias[:gates] += recurrent_bias[:gates]
        params["recurrent_bias"] = recurrent_bias[gates:]
    else:
        bias += recurrent_bias
    if isinstance(cell, ProjectionLSTM):
        params["projection_kernel"] = arrays["weight_hr"].T
    params["bias"] = _signed(cell, bias)
    return {name: jnp.asarray(array) for name, array in params.items()}


def stack_to_pytorch(cell: Cell, layers: Mapping[str, Params]) -> dict[str, np.ndarray]:
    """The state of a whole `torch.nn.LSTM` and its like.

    Args:
        cell: the cell, the same in all layers and directions.
        layers: parameters by PyTorch's suffixes: "l0", "l0_reverse", "l1", ...
    """
    return {
        f"{name}_{suffix}": array
        for suffix, params in layers.items()
        for name, array in to_pytorch(cell, params).items()
    }


def stack_from_pytorch(cell: Cell, state: Arrays) -> dict[str, dict[str, jax.Array]]:
    """The parameters of each layer and direction by PyTorch's suffixes: "l0", "l0_reverse", ...

    Args:
        cell: the cell, the same in all layers and directions.
        state: the module's state, such as {"weight_ih_l0": ..., "weight_ih_l0_reverse": ...}.

    Raises:
        InputError: for a name without such a suffix, and as `from_pytorch`.
    """
    layers: dict[str, dict[str, Any]] = {}
    for key, array in state.items():
        match = re.fullmatch(r"(\w+?)_(l\d+(?:_reverse)?)", key)
        if match is None:
            raise InputError(
                f"{key!r} is no parameter of a recurrent PyTorch module, whose names are like "
                "'weight_ih_l0'; give that module's own state"
            )
        layers.setdefault(match[2], {})[match[1]] = array
    return {suffix: from_pytorch(cell, arrays) for suffix, arrays in layers.items()}


def to_flax(cell: Cell, params: Params) -> dict[str, dict[str, jax.Array]]:
    """The tree of `flax.linen.SimpleCell`, `LSTMCell` and `OptimizedLSTMCell`, or `GRUCell`.

    Raises:
        InputError: for a cell that Flax does not have.
    """
    _require(cell, _FLAX, "Flax")
    names = _GATES[type(cell)]
    tree: dict[str, dict[str, Any]] = {}
    for side, kernel in (("i", "input_kernel"), ("h", "recurrent_kernel")):
        blocks = np.split(_signed(cell, params[kernel]), len(names), axis=1)
        tree |= {side + name: {"kernel": k} for name, k in zip(names, blocks, strict=True)}
    biases = np.split(_signed(cell, params["bias"]), len(names))
    for name, bias in zip(names, biases, strict=True):
        tree[_biased_side(cell) + name]["bias"] = bias
    if isinstance(cell, GRUAfter):
        tree["hn"]["bias"] = params["recurrent_bias"]
    return jax.tree.map(jnp.asarray, tree)


def from_flax(cell: Cell, tree: Mapping[str, Arrays]) -> dict[str, jax.Array]:
    """The cell's parameters from what `to_flax` gives.

    Raises:
        InputError: for a cell that Flax does not have, or a tree that is not the cell's.
    """
    names = _GATES[type(cell)] if type(cell) in _FLAX else ("",)
    leaves = _fitting(cell, tree, to_flax, f"i{names[0]}/kernel", axis=0)

    def gather(side: str, leaf: str) -> np.ndarray:
        return _signed(cell, np.concatenate([leaves[f"{side}{n}/{leaf}"] for n in names], axis=-1))

    params = {
        "input_kernel": gather("i", "kernel"),
        "recurrent_kernel": gather("h", "kernel"),
        "bias": gather(_biased_side(cell), "bias"),
    }
    if isinstance(cell, GRUAfter):
        params["recurrent_bias"] = leaves["hn/bias"]
    return {name: jnp.asarray(array) for name, array in params.items()}


def _biased_side(cell: Cell) -> str:
    return "h" if isinstance(cell, LSTM) else "i"


def _signed(cell: Cell, array: Any) -> np.ndarray:
    """The array, (..., G), with the sign of a GRU's update gate changed."""
    if not isinstance(cell, GRUAfter):
        return np.asarray(array)
    return np.asarray(array) * np.repeat(np.array([1, -1, 1], np.float32), cell.features)


def _require(cell: Cell, possible: Iterable[type[Cell]], where: str) -> None:
    # Not isinstance: what is derived from one of them computes something else.
    if type(cell) not in possible:
        names = ", ".join(sorted(kind.__name__ for kind in possible))
        raise InputError(f"{where} has no {type(cell).__name__}; convert one of: {names}")


def _fitting(
    cell: Cell, given: Mapping[str, Any], convert: Callable[..., Any], kernel: str, *, axis: int
) -> dict[str, np.ndarray]:
    """The given arrays by their paths, whose names and shapes are those that the cell converts to.

    The width of the inputs is that of the array `kernel`, along `axis`.
    """
    arrays = {name: np.asarray(array) for name, array in flatten_dict(given, sep="/").items()}
    inputs = np.atleast_2d(arrays[kernel]).shape[axis] if kernel in arrays else 1
    shapes = jax.eval_shape(functools.partial(cell.init, inputs=inputs), jax.random.key(0))
    zeros = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
    expected = flatten_dict(convert(cell, zeros), sep="/")
    if arrays.keys() != expected.keys():
        names, needed = ", ".join(sorted(arrays)), ", ".join(sorted(expected))
        raise InputError(f"given are {names or 'no parameters'}; {cell} needs exactly {needed}")
    for name, array in arrays.items():
        if array.shape != expected[name].shape:
            raise InputError(
                f"{name} is {array.shape}, but {cell} needs {expected[name].shape}; "
                "give the cell the widths of the parameters"
            )
    return arrays
