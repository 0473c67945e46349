"""What an optimizer tells the log about its last step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlcore.types import Mean


class Reported(NamedTuple):
    """A part of an optimizer's state that is there to be read.

    Attributes:
        values: scalars of the last step by name; zeros before the first step.
    """

    values: dict[str, jax.Array]

    @classmethod
    def nothing_yet(cls, *names: str) -> "Reported":
        """The state before the first step."""
        return cls({name: jnp.zeros(()) for name in names})


def reported(opt_state: Any) -> dict[str, Mean]:
    """Everything that the parts of `opt_state` report, as metrics of weight 1.

    Two parts that report under one name are merged into their mean.
    """
    means: dict[str, Mean] = {}
    for part in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, Reported)):
        if isinstance(part, Reported):
            for name, value in part.values.items():
                mean = Mean.of(value)
                means[name] = means[name].merge(mean) if name in means else mean
    return means
