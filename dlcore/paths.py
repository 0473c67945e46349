"""Paths of the leaves of a pytree, and rules that give each path a value.

A path joins the names on the way to a leaf by "/": `encoder/dense_0/kernel`. Rules are a list of
(regular expression, value); each leaf gets the value of the first rule whose expression matches
anywhere in its path. Sharding, weight decay, freezing, learning-rate factors and partial restores
all use such rules.
"""

from collections.abc import Sequence
from typing import TypeVar

import jax
from jax.tree_util import KeyPath

from dlcore.errors import InputError
from dlcore.patterns import Pattern
from dlcore.types import PyTree

T = TypeVar("T")
# (Regular expression, value) pairs, of which the first that is found in a path wins.
Rules = Sequence[tuple[str, T]]


def path_of(key_path: KeyPath) -> str:
    """Returns the path of a leaf from its key path of `jax.tree_util`."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def leaves_by_path(tree: PyTree) -> dict[str, PyTree]:
    """Returns the leaves of `tree` by their paths, in the tree's order.

    >>> leaves_by_path({"dense": {"kernel": 1, "bias": 0}})
    {'dense/bias': 0, 'dense/kernel': 1}
    """
    return {path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def match(tree: PyTree, rules: Rules[T], default: T) -> PyTree:
    """Returns a tree of the same structure whose leaves are the values that the rules give.

    Args:
        tree: any pytree; only its paths are read.
        rules: (regular expression, value) pairs; the first expression found in a path wins.
        default: the value for paths that no rule matches.

    Raises:
        InputError: when a rule matches no path of the tree (a rule without effect is a mistake), or
            is not a regular expression, or takes too long.

    >>> match({"dense": {"kernel": 1, "bias": 0}}, [("bias$", False)], True)
    {'dense': {'bias': False, 'kernel': True}}
    """
    paths = list(leaves_by_path(tree))
    compiled = []
    for pattern, value in rules:
        expression = Pattern(f"rule {pattern!r}", pattern)
        if not any(expression.search(path) for path in paths):
            raise InputError(
                f"rule {pattern!r} matches none of the {len(paths)} paths; they are: "
                + ", ".join(paths[:8])
                + (", ..." if len(paths) > 8 else "")
            )
        compiled.append((expression, value))

    def value_of(key_path: KeyPath, _: PyTree) -> T:
        path = path_of(key_path)
        return next((value for expression, value in compiled if expression.search(path)), default)

    return jax.tree_util.tree_map_with_path(value_of, tree)
