"""Training in phases: one after the other, each with a loss and an optimizer of its own.

A run in phases is one run: the number of the step says which phase it is in, so that it resumes in
the midst of any of them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlcore.train.gradient import gradient_step
from dlcore.types import Batch, LossFn, Mean, Metrics, Step, TrainState


class Phase(NamedTuple):
    """A part of the training.

    Attributes:
        steps: how many it has; the last one goes on for as long as there are steps.
        loss: as that of `gradient_step`.
        optimizer: begins anew with the phase. What it freezes stays as the phase before left it.
    """

    steps: int
    loss: LossFn
    optimizer: optax.GradientTransformation


def phased_optimizer(
    optimizers: Sequence[optax.GradientTransformation],
) -> optax.GradientTransformation:
    """Returns an optimizer whose state is a tuple of those of all phases; it cannot update."""

    def init(params: Any) -> tuple[Any, ...]:
        return tuple(tx.init(params) for tx in optimizers)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        raise TypeError("phases are updated by `phased_step`")

    return optax.GradientTransformation(init, update)


def phased_step(phases: Sequence[Phase], *, accumulate: int = 1) -> Step:
    """Returns the step of a training in phases; its state is that of `phased_optimizer`.

    All phases are compiled into one step, which chooses by the state's own counter. A metric that
    a phase does not have counts nothing in it.

    Args:
        phases: in order.
        accumulate: as that of `gradient_step`.
    """
    steps = [gradient_step(phase.loss, phase.optimizer, accumulate=accumulate) for phase in phases]
    lengths = [phase.steps for phase in phases[:-1]]

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        def own(number: int, state: TrainState) -> tuple[TrainState, Metrics]:
            inner = state.replace(opt_state=state.opt_state[number])
            new, metrics = steps[number](inner, batch)
            states = list(state.opt_state)
            states[number] = new.opt_state
            return new.replace(opt_state=tuple(states)), metrics

        names = {
            name
            for number in range(len(steps))
            for name in jax.eval_shape(lambda s, n=number: own(n, s)[1], state)
        }
        nothing = Mean(jnp.zeros(()), jnp.zeros(()))

        def branch(number: int) -> Any:
            def run(state: TrainState) -> tuple[TrainState, Metrics]:
                new, metrics = own(number, state)
                return new, {name: metrics.get(name, nothing) for name in sorted(names)}

            return run

        ends = jnp.cumsum(jnp.array(lengths, jnp.int32))
        phase = jnp.searchsorted(ends, state.step, side="right")
        found: tuple[TrainState, Metrics] = jax.lax.switch(
            phase, [branch(number) for number in range(len(steps))], state
        )
        return found

    return step
