"""The types of numbers that a step computes in, which are passed once, to the compilation.

This is mixed precision as in Micikevicius et al. 2018 and the policies of DeepMind's jmp:
parameters, gradients and the optimizer's state have one type, computations between them another,
and sums over examples a third. Models have no argument for it: they compute in the type of the
parameters that they get.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

from dlcore import errors

Tree = Any


@dataclasses.dataclass(frozen=True)
class Precision:
    """The types of a step's numbers.

    Attributes:
        params: the type of the parameters that the optimizer changes, of their gradients, and of
            the optimizer's state.
        compute: the type of the parameters that a model sees, and so of its computations.
        output: the least type of losses and metrics.
    """

    params: Any = jnp.float32
    compute: Any = jnp.float32
    output: Any = jnp.float32

    def cast(self, params: Tree) -> Tree:
        """Returns the parameters as a model sees them; leaves of types other than `params` stay."""

        def cast(leaf: jax.Array) -> jax.Array:
            return leaf.astype(self.compute) if leaf.dtype == self.params else leaf

        return params if self.params == self.compute else jax.tree.map(cast, params)

    def widen(self, tree: Tree) -> Tree:
        """Returns a tree whose floats that are narrower than `output` are widened to it."""

        def widen(leaf: Any) -> jax.Array:
            leaf = jnp.asarray(leaf)
            floating = jnp.issubdtype(leaf.dtype, jnp.floating)
            narrow = floating and leaf.dtype.itemsize < jnp.dtype(self.output).itemsize
            return leaf.astype(self.output) if narrow else leaf

        return jax.tree.map(widen, tree)


FLOAT32 = Precision()
_PRECISIONS = {
    "float32": FLOAT32,
    "bfloat16": Precision(compute=jnp.bfloat16),
}
NAMES = tuple(_PRECISIONS)
_current: ContextVar[Precision] = ContextVar("precision", default=FLOAT32)


def precision(name: str) -> Precision:
    """Returns a precision by name: "float32", or "bfloat16" with float32 parameters and sums.

    Raises:
        InputError: for any other name.
    """
    return errors.pick("precision", name, _PRECISIONS)


def current_precision() -> Precision:
    """Returns the precision in which code is being traced; float32 by default."""
    return _current.get()


@contextlib.contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Makes steps and evaluations be traced in a precision while open."""
    token = _current.set(precision)
    try:
        yield
    finally:
        _current.reset(token)


def as_before(new: Tree, old: Tree) -> Tree:
    """Returns the new tree with the types of the old one's leaves, if it has the same structure."""

    def cast(new: Any, old: Any) -> Any:
        if not hasattr(old, "dtype") or getattr(new, "dtype", None) == old.dtype:
            return new
        return jnp.asarray(new).astype(old.dtype)

    same = hash(jax.tree.structure(new)) == hash(jax.tree.structure(old))
    return jax.tree.map(cast, new, old) if same else new
