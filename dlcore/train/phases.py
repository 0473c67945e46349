"""Training in phases: one after the other, each with a loss and an optimizer of its own.

A run in phases is one run: the number of the step says which phase it is in, so that it can resume
in the middle of any phase.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlcore.train.gradient import gradient_step
from dlcore.types import Batch, LossFn, Mean, Metrics, Params, Step, TrainState


class Phase(NamedTuple):
    """One phase of a training.

    Attributes:
        steps: the number of steps; the last phase goes on for as long as there are steps.
        loss: the loss, as for `gradient_step`.
        optimizer: the optimizer, which starts fresh with the phase. What it freezes stays as the
            phase before left it.
        begin: makes the parameters that the phase starts from out of those that the phase before
            left, such as a layer's out of those of the layer below; None where they are the same.
    """

    steps: int
    loss: LossFn
    optimizer: optax.GradientTransformation
    begin: Callable[[Params], Params] | None = None


def phased_optimizer(phases: Sequence[Phase]) -> optax.GradientTransformation:
    """Returns an optimizer whose state is a tuple of the states of all phases; it cannot update.

    Where phases make the parameters that they start from (`begin`), the last element of the tuple
    is the number of the last phase that did. So a bad step, which changes nothing, cannot make a
    phase skip this.
    """

    def init(params: Any) -> tuple[Any, ...]:
        states = [phase.optimizer.init(params) for phase in phases]
        return (*states, *([jnp.zeros((), jnp.int32)] if _begin(phases) else []))

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        raise TypeError("phases are updated by `phased_step`")

    return optax.GradientTransformation(init, update)


def _begin(phases: Sequence[Phase]) -> bool:
    return any(phase.begin for phase in phases)


def phased_step(phases: Sequence[Phase], *, accumulate: int = 1) -> Step:
    """Returns the step of a training in phases; `phased_optimizer` makes its optimizer's state.

    All phases are compiled into one step, which chooses the phase by the state's own counter. A
    metric that a phase does not have has weight 0 in it.

    Args:
        phases: the phases in order. The first one has no `begin`.
        accumulate: as for `gradient_step`.
    """
    steps = [gradient_step(phase.loss, phase.optimizer, accumulate=accumulate) for phase in phases]
    lengths = [phase.steps for phase in phases[:-1]]

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        def own(number: int, state: TrainState) -> tuple[TrainState, Metrics]:
            states, params = list(state.opt_state), state.params
            if _begin(phases):
                if (begin := phases[number].begin) is not None:
                    first = states[-1] < number
                    params = jax.lax.cond(first, begin, lambda params: params, params)
                states[-1] = jnp.full_like(states[-1], number)
            inner = state.replace(params=params, opt_state=states[number])
            new, metrics = steps[number](inner, batch)
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
