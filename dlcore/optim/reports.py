"""Values of an optimizer's last step for the log, such as the learning rate."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlcore.types import Mean, Metrics, PyTree


class Reported(NamedTuple):
    """Values in an optimizer's state that `reported` reads.

    Attributes:
        values: scalars of the last step by name; zeros before the first step.
    """

    values: dict[str, jax.Array]

    @classmethod
    def nothing_yet(cls, *names: str) -> "Reported":
        """Returns the state before the first step."""
        return cls({name: jnp.zeros(()) for name in names})


def reported(opt_state: PyTree) -> Metrics:
    """Returns all values that the parts of `opt_state` report, as metrics of weight 1.

    Values of the same name are merged into their mean.

    >>> state = (Reported({"clipped": jnp.array(0.25)}), Reported({"clipped": jnp.array(0.75)}))
    >>> float(reported(state)["clipped"].compute())
    0.5
    """
    means: Metrics = {}
    for node in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, Reported)):
        if isinstance(node, Reported):
            for name, value in node.values.items():
                mean = Mean.of(value)
                means[name] = means[name].merge(mean) if name in means else mean
    return means
