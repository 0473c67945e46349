"""The reduction of the learning rate where a held-out loss no longer falls.

Optax's `contrib.reduce_on_plateau` takes a loss in each update, which is the noisy loss of a batch.
Here the loss comes from an evaluation, which happens between two updates: the factor is a part of
the optimizer's state, and so of each checkpoint, and `reduce_on_plateau` returns the state after an
evaluation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.types import PyTree


class Plateau(NamedTuple):
    """The factor of the learning rate and the values that decide on it, in an optimizer's state.

    Attributes:
        scale: the factor, float32.
        best: the lowest loss yet, float32; infinity before the first.
        waited: the number of evaluations since then, or since the factor became smaller, int32.
    """

    scale: jax.Array
    best: jax.Array
    waited: jax.Array

    @classmethod
    def start(cls) -> "Plateau":
        """Returns the state before the first evaluation."""
        return cls(jnp.ones(()), jnp.full((), jnp.inf), jnp.zeros((), jnp.int32))


def reduce_on_plateau(
    opt_state: PyTree, loss: float, *, patience: int, factor: float
) -> tuple[PyTree, bool]:
    """Returns the optimizer's state after an evaluation, and whether its rate became smaller.

    The `patience`-th evaluation in a row whose loss is not lower than the lowest one yet multiplies
    the learning rate by `factor`, and the count starts again. NaN is never lower.

    Args:
        opt_state: the state of an `optimizer` with `reducible`.
        loss: the loss of the evaluation.
        patience: the number of evaluations, 1 or more.
        factor: the factor, below 1.

    >>> state, reduced = reduce_on_plateau(Plateau.start(), 2.0, patience=1, factor=0.5)
    >>> state, reduced = reduce_on_plateau(state, 3.0, patience=1, factor=0.5)
    >>> float(state.scale), float(state.best), reduced
    (0.5, 2.0, True)
    """
    old = _find(opt_state)
    assert old is not None, "an optimizer with `reducible`"
    lower = np.float32(loss) < np.asarray(old.best)
    waited = 0 if lower else int(old.waited) + 1
    reduced = waited >= patience
    values = (
        np.asarray(old.scale) * np.float32(factor if reduced else 1),
        np.float32(loss) if lower else np.asarray(old.best),
        np.int32(0 if reduced else waited),
    )
    new = Plateau(
        *(jax.device_put(value, was.sharding) for value, was in zip(values, old, strict=True))
    )
    changed = jax.tree.map(lambda node: new if node is old else node, opt_state, is_leaf=_is)
    return changed, reduced


def rate_scale(opt_state: PyTree) -> float:
    """Returns the factor of the learning rate; 1 where the state has none."""
    plateau = _find(opt_state)
    return 1.0 if plateau is None else float(plateau.scale)


def _is(node: PyTree) -> bool:
    return isinstance(node, Plateau)


def _find(opt_state: PyTree) -> Plateau | None:
    return next(filter(_is, jax.tree.leaves(opt_state, is_leaf=_is)), None)
