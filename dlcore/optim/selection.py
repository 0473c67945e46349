"""The choice of the parameters that weight decay and penalties shrink."""

import jax
from jax.tree_util import KeyPath

from dlcore.paths import Rules, match, path_of
from dlcore.types import PyTree

# The last names of parameters that stay vectors where the layers of a scan are stacked.
_VECTORS = ("bias", "scale", "negative_slope")


def weights(tree: PyTree, rules: Rules[bool] = ()) -> PyTree:
    """Returns for each leaf the value of the first rule that matches, else `is_matrix`.

    Raises:
        InputError: when a rule matches no path of `tree`.
    """
    ruled = match(tree, [(pattern, bool(value)) for pattern, value in rules], "by dimensions")
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf, value: is_matrix(path, leaf) if value == "by dimensions" else value,
        tree,
        ruled,
    )


def is_matrix(key_path: KeyPath, leaf: jax.Array) -> bool:
    """Returns whether a leaf has two or more dimensions and its name is not that of a vector.

    Kernels are matrices; biases, scales of norms and slopes of PReLU are not, even where several
    layers are stacked for a scan.
    """
    return leaf.ndim >= 2 and path_of(key_path).split("/")[-1] not in _VECTORS
