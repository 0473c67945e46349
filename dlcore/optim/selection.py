"""Which parameters are weights, the ones that decay and penalties shrink."""

from typing import Any

import jax

from dlcore.paths import Rules, match, path_of


def weights(tree: Any, rules: Rules[bool] = ()) -> Any:
    """A tree of booleans: what the rules say, else whether the leaf is a matrix, see `is_matrix`.

    Raises:
        InputError: when a rule matches no path of `tree`.
    """
    ruled = match(tree, [(pattern, bool(value)) for pattern, value in rules], "by dimensions")
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf, value: is_matrix(path, leaf) if value == "by dimensions" else value,
        tree,
        ruled,
    )


def is_matrix(key_path: tuple[Any, ...], leaf: Any) -> bool:
    """Whether a leaf has two or more dimensions and is no bias nor scale.

    So kernels are; biases, the scales of norms and slopes of PReLU are not, not even those of
    several layers that are stacked for a scan.
    """
    return leaf.ndim >= 2 and path_of(key_path).split("/")[-1] not in ("bias", "scale")
