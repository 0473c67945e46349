"""The units of a parameter: the sets of weights that lead into one neuron or form one vector.

Shapes: I inputs, O outputs, V words, D features, N stacked layers.
"""

import jax
from jax.tree_util import KeyPath

from dlcore.optim.selection import is_matrix
from dlcore.paths import path_of

# The last names of parameters with a row for each word.
_TABLES = ("embedding", "output_kernel")


def is_table(key_path: KeyPath) -> bool:
    """Returns whether a parameter has a row for each word, judging by its name."""
    return path_of(key_path).endswith(_TABLES)


def unit_axes(key_path: KeyPath, leaf: jax.Array) -> tuple[int, ...]:
    """Returns the axes of a leaf along which the weights belong to one unit.

    A unit of a kernel [I, O] or [height, width, I, O] is a column, one of the O outputs; of a table
    of words [V, D] it is a row. Biases, scales and other vectors are one unit each. Where the
    layers of a scan are stacked, [N, ...], each of the N has its own units.
    """
    if leaf.ndim == 0:
        return ()
    if is_table(key_path) or not is_matrix(key_path, leaf):
        return (leaf.ndim - 1,)
    # The kernels of dense layers and image convolutions have 2 and 4 dimensions.
    return tuple(range(leaf.ndim % 2, leaf.ndim - 1))
