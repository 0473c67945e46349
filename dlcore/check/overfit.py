"""Checks that a model can memorise one batch, and that it is healthy before and after."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from dlcore.paths import leaves_by_path
from dlcore.types import Activations, Batch, Params, Step, TrainState


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The result of the attempt to overfit one batch.

    Attributes:
        passed: whether the loss reached the target and every parameter moved.
        first_loss: the loss before the first update.
        last_loss: the loss at the last step that was taken.
        target: the value that the loss had to fall below.
        steps: the number of steps taken.
        frozen: the paths of the parameters that did not change by one bit.
        causes: what probably went wrong, one line each; empty when it passed.
        state: the state at the end.
        metrics: the metrics of the last step.
    """

    passed: bool
    first_loss: float
    last_loss: float
    target: float
    steps: int
    frozen: tuple[str, ...]
    causes: tuple[str, ...]
    state: TrainState
    metrics: dict[str, float]


def overfit_one_batch(
    step: Step,
    state: TrainState,
    batch: Batch,
    *,
    steps: int,
    target: float | None = None,
    share: float = 0.5,
) -> Verdict:
    """Trains on the same batch again and again until its loss is below the target.

    A network that cannot fit a handful of examples cannot fit many. The batch should have no
    augmentation, shuffling or, preferably, dropout that would make this harder.

    Args:
        step: (state, batch) -> (state, metrics with "loss"); jitted here, unless it already is.
            A step that donates its state consumes the given state.
        state: a fresh state.
        batch: a small batch.
        steps: the largest number of steps to take.
        target: stop when the loss is below this, in the loss's own unit.
        share: without a target, stop when the loss has fallen from its first value L to below
            L - (1 - share) |L|: to this share of it where it is positive.
    """
    before = jax.device_get(state.params)
    run: Any = step if hasattr(step, "lower") else jax.jit(step)
    losses: list[float] = []
    while len(losses) < steps:
        state, metrics = run(state, batch)
        losses.append(float(metrics["loss"].compute()))
        if target is None:
            target = losses[0] - (1 - share) * abs(losses[0])
        if not math.isfinite(losses[-1]) or losses[-1] < target:
            break
    if target is None:
        raise ValueError(f"{steps} steps were allowed, but at least one is needed")
    frozen = _unchanged(before, jax.device_get(state.params))
    causes = _causes(losses, target, frozen)
    last = {name: float(mean.compute()) for name, mean in metrics.items()}
    return Verdict(
        not causes, losses[0], losses[-1], target, len(losses), frozen, causes, state, last
    )


def _unchanged(before: Params, after: Params) -> tuple[str, ...]:
    new = leaves_by_path(after)
    return tuple(p for p, old in leaves_by_path(before).items() if np.array_equal(old, new[p]))


def _causes(losses: list[float], target: float, frozen: tuple[str, ...]) -> tuple[str, ...]:
    first, last, best = losses[0], losses[-1], np.nanmin([*losses, math.inf])
    causes = []
    if frozen:
        causes.append(
            "never changed (frozen, dead, or cut off from the loss): " + ", ".join(frozen)
        )
    if not math.isfinite(first):
        causes.append("the loss is not finite before any update: look at the inputs and the model")
    elif not math.isfinite(last):
        causes.append("the loss stopped being finite: lower the learning rate or clip gradients")
    elif last >= target:
        if max(losses) > 1.5 * first:
            causes.append(
                f"the loss rose to {max(losses):.3g}: lower the learning rate, or the gradient's "
                "sign is wrong"
            )
        elif last > 2 * best and best < 0.9 * first:
            causes.append("the loss fell and came back: lower the learning rate")
        elif first - last < 0.1 * abs(first - target):
            causes.append(
                "the loss hardly moves: raise the learning rate, or look for labels that do not "
                "belong to their inputs"
            )
        else:
            causes.append(
                "the loss falls, but not far enough: more steps, a higher learning rate, less "
                "regularisation or a larger model"
            )
    return tuple(causes)


def initial_loss_is_chance(loss: float, chance: float) -> bool:
    """Returns whether the loss of a fresh model is near the loss of guessing evenly, in nats.

    Near means within a factor of 2: random logits of variance s^2 add about s^2 / 2 nats.

    >>> initial_loss_is_chance(2.5, math.log(10)), initial_loss_is_chance(9.0, math.log(10))
    (True, False)
    """
    return chance / 2 <= loss <= 2 * chance


def dead_units(activations: Activations) -> dict[str, float]:
    """Returns the share of each activation's features that are 0 everywhere in every example.

    A feature that is always 0 after a rectifier gets no gradient and stays dead.

    Args:
        activations: the activations by name, (B, ..., D).
    """
    return {
        name: float(np.mean(np.all(np.asarray(a) == 0, axis=tuple(range(a.ndim - 1)))))
        for name, a in activations.items()
    }
