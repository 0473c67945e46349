"""Which parameters are weights, the ones that decay and penalties shrink."""

from typing import Any

import jax

from dlcore.paths import Rules, match


def weights(tree: Any, rules: Rules[bool] = ()) -> Any:
    """A tree of booleans: what the rules say, else whether the leaf has two or more dimensions.

    So kernels are weights by default; biases, the scales of norms and slopes of PReLU are not.

    Raises:
        InputError: when a rule matches no path of `tree`.
    """
    ruled = match(tree, [(pattern, bool(value)) for pattern, value in rules], "by dimensions")
    return jax.tree.map(
        lambda value, leaf: leaf.ndim >= 2 if value == "by dimensions" else value, ruled, tree
    )
