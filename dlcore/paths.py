"""Paths of the leaves of a pytree, and the one rule language that reads them.

A path joins the names on the way to a leaf by "/": `encoder/dense_0/kernel`. Rules are a list of
(regular expression, value); for each leaf the first rule whose expression is found anywhere in the
path wins. Sharding, weight decay, freezing, learning-rate factors and partial restores all use it.
"""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import jax

from dlcore.errors import InputError

T = TypeVar("T")
Rules = Sequence[tuple[str, T]]


def path_of(key_path: tuple[Any, ...]) -> str:
    """The path string of a leaf from the key path that `jax.tree_util` gives."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """The leaves of `tree` by their paths, in the tree's own order."""
    return {path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def match(tree: Any, rules: Rules[T], default: T) -> Any:
    """A tree of the same structure whose leaves are the values that the rules give.

    Args:
        tree: any pytree; only its paths are read.
        rules: (regular expression, value) pairs; the first that `re.search` finds in a path wins.
        default: the value for paths that no rule matches.

    Raises:
        InputError: when a rule is found in no path of the tree (a rule without effect is a
            mistake), or is not a regular expression.
    """
    paths = list(leaves_by_path(tree))
    compiled = []
    for pattern, value in rules:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise InputError(f"rule {pattern!r} is not a regular expression: {error}") from None
        if not any(expression.search(path) for path in paths):
            raise InputError(
                f"rule {pattern!r} matches none of the {len(paths)} paths; they are: "
                + ", ".join(paths[:8])
                + (", ..." if len(paths) > 8 else "")
            )
        compiled.append((expression, value))

    def value_of(key_path: tuple[Any, ...], _: Any) -> T:
        path = path_of(key_path)
        return next((value for expression, value in compiled if expression.search(path)), default)

    return jax.tree_util.tree_map_with_path(value_of, tree)
