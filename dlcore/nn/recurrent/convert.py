"""Converts parameters of cells to and from the layouts of PyTorch and Flax, without either library.

The cells that these libraries have are `Vanilla`, `LSTM`, `GRUAfter` and, in PyTorch,
`ProjectionLSTM`. PyTorch stores the gates in rows and has two biases; only their sum matters,
except for the candidate of its GRU. Flax has one small kernel per gate. In both, the update gate
keeps the share z = 1 - u; as sigmoid(-x) = 1 - sigmoid(x), its weights and biases change sign.

Shapes: D inputs, H features, P outputs, G gates times features.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax.traverse_util import flatten_dict

from dlcore.errors import InputError
from dlcore.nn.recurrent.cell import Cell, Params
from dlcore.nn.recurrent.gru import GRUAfter
from dlcore.nn.recurrent.lstm import LSTM, ProjectionLSTM
from dlcore.nn.recurrent.vanilla import Vanilla
from dlcore.types import PyTree

Arrays = Mapping[str, npt.ArrayLike]

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
    """Names the parameters as `torch.nn.RNN`, `LSTM` and `GRU` do, without the layer's suffix.

    Returns:
        `weight_ih` (G, D), `weight_hh` (G, P), `bias_ih` (G,), `bias_hh` (G,) and for a projection
        `weight_hr` (P, H). `bias_hh` is 0 except for the candidate of a GRU.

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
    # `torch.from_numpy` takes copies in C order without a warning.
    return {name: np.array(array, order="C") for name, array in arrays.items()}


def from_pytorch(cell: Cell, arrays: Arrays) -> dict[str, jax.Array]:
    """Inverts `to_pytorch`.

    Raises:
        InputError: for a cell that PyTorch does not have, or arrays that are not the cell's.
    """
    checked = _checked(cell, arrays, to_pytorch, "weight_ih", axis=1)
    bias, recurrent_bias = checked["bias_ih"].copy(), checked["bias_hh"]
    params = {
        "input_kernel": _signed(cell, checked["weight_ih"].T),
        "recurrent_kernel": _signed(cell, checked["weight_hh"].T),
    }
    if isinstance(cell, GRUAfter):
        gates = 2 * cell.features
        bias[:gates] += recurrent_bias[:gates]
        params["recurrent_bias"] = recurrent_bias[gates:]
    else:
        bias += recurrent_bias
    if isinstance(cell, ProjectionLSTM):
        params["projection_kernel"] = checked["weight_hr"].T
    params["bias"] = _signed(cell, bias)
    return {name: jnp.asarray(array) for name, array in params.items()}


def stack_to_pytorch(cell: Cell, layers: Mapping[str, Params]) -> dict[str, np.ndarray]:
    """Returns the state of a whole `torch.nn.RNN`, `LSTM` or `GRU`.

    Args:
        cell: the cell, the same in all layers and directions.
        layers: parameters by PyTorch's suffixes: "l0", "l0_reverse", "l1", ...

    Raises:
        InputError: as for `to_pytorch`.
    """
    return {
        f"{name}_{suffix}": array
        for suffix, params in layers.items()
        for name, array in to_pytorch(cell, params).items()
    }


def stack_from_pytorch(cell: Cell, state: Arrays) -> dict[str, dict[str, jax.Array]]:
    """Inverts `stack_to_pytorch`.

    Args:
        cell: the cell, the same in all layers and directions.
        state: the module's state, such as {"weight_ih_l0": ..., "weight_ih_l0_reverse": ...}.

    Returns:
        The parameters by PyTorch's suffixes: "l0", "l0_reverse", "l1", ...

    Raises:
        InputError: for a name without such a suffix, and as for `from_pytorch`.
    """
    layers: dict[str, dict[str, npt.ArrayLike]] = {}
    for key, array in state.items():
        match = re.fullmatch(r"(\w+?)_(l\d+(?:_reverse)?)", key)
        if match is None:
            raise InputError(
                f"{key!r} is not a parameter of a recurrent PyTorch module, whose names are like "
                "'weight_ih_l0'; give that module's own state"
            )
        layers.setdefault(match[2], {})[match[1]] = array
    return {suffix: from_pytorch(cell, arrays) for suffix, arrays in layers.items()}


def to_flax(cell: Cell, params: Params) -> dict[str, dict[str, jax.Array]]:
    """Returns the parameters of Flax's `SimpleCell`, `LSTMCell`, `OptimizedLSTMCell` or `GRUCell`.

    Raises:
        InputError: for a cell that Flax does not have.
    """
    _require(cell, _FLAX, "Flax")
    names = _GATES[type(cell)]
    tree: dict[str, dict[str, np.ndarray]] = {}
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
    """Inverts `to_flax`.

    Raises:
        InputError: for a cell that Flax does not have, or a tree that is not the cell's.
    """
    names = _GATES[type(cell)] if type(cell) in _FLAX else ("",)
    leaves = _checked(cell, tree, to_flax, f"i{names[0]}/kernel", axis=0)

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


def _signed(cell: Cell, array: npt.ArrayLike) -> np.ndarray:
    """Changes the sign of a GRU's update gate in an array (..., G)."""
    if not isinstance(cell, GRUAfter):
        return np.asarray(array)
    return np.asarray(array) * np.repeat(np.array([1, -1, 1], np.float32), cell.features)


def _require(cell: Cell, possible: Iterable[type[Cell]], library: str) -> None:
    # Not isinstance: subclasses compute something else.
    if type(cell) not in possible:
        names = ", ".join(sorted(kind.__name__ for kind in possible))
        raise InputError(f"{library} has no {type(cell).__name__}; convert one of: {names}")


def _checked(
    cell: Cell,
    tree: PyTree,
    convert: Callable[[Cell, Params], Mapping[str, PyTree]],
    kernel: str,
    *,
    axis: int,
) -> dict[str, np.ndarray]:
    """Returns the arrays of a tree by path if they have the names and shapes that the cell needs.

    The size of the array `kernel` along `axis` is the width of the inputs.
    """
    arrays = {name: np.asarray(array) for name, array in flatten_dict(tree, sep="/").items()}
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
