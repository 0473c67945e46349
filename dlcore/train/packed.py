"""The metrics of a step in one array."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dlcore.types import Batch, Step, TrainState, at_least_float32

CountFlops = Callable[[Any], float]


class PackedStep:
    """A step whose metrics are one array (metrics, 2) of totals and weights.

    Each array that a compiled step returns costs the host microseconds to make and to read, which
    matters when a step takes half a millisecond.

    Attributes:
        names: the names of the metrics, known once the step was traced.
        count_flops: counts the FLOPs of the model in a traced step, from its jaxpr; None counts
            none.
        flops: the FLOPs of the program that was traced last; where the program sees only one
            device's part, the FLOPs of that part.
        numbers: the count of numbers in the batch that this program saw.
    """

    def __init__(self, step: Step, count_flops: CountFlops | None = None):
        functools.update_wrapper(self, step)
        self._step = step
        self.count_flops = count_flops
        self.names: list[str] = []
        self.flops = 0.0
        self.numbers = 0

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, jax.Array]:
        # To trace takes seconds for a large model. This way once is enough, and the program is the
        # same as without. A new function, or JAX might take a trace from where the ambient layout
        # was another.
        step = jax.jit(functools.partial(self._step), inline=True)
        if self.count_flops is not None:
            self.flops = self.count_flops(step.trace(state, batch).jaxpr)
            self.numbers = numbers_in(batch)
        state, metrics = step(state, batch)
        self.names = sorted(metrics)
        means = [metrics[name] for name in self.names]
        pairs = [[jnp.asarray(mean.total), jnp.asarray(mean.weight)] for mean in means]
        dtype = at_least_float32(*[number.dtype for pair in pairs for number in pair])
        return state, jnp.stack(
            [jnp.stack([number.astype(dtype) for number in pair]) for pair in pairs]
        )


def numbers_in(batch: Batch) -> int:
    """Returns the count of numbers that a batch holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(batch))
