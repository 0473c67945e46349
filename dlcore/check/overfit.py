"""Can the model learn one batch by heart? And is it healthy before and after?"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from dlcore.paths import leaves_by_path
from dlcore.types import Mean

Step = Callable[[Any, Any], tuple[Any, dict[str, Mean]]]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How the attempt to overfit one batch ended.

    Attributes:
        passed: the loss reached the target, and every parameter moved.
        first_loss: before the first update.
        last_loss: at the last step that was taken.
        steps: how many were taken.
        frozen: the paths of the parameters that did not change by one bit.
        causes: what probably went wrong, one line each; empty when it passed.
        state: the state at the end.
    """

    passed: bool
    first_loss: float
    last_loss: float
    steps: int
    frozen: tuple[str, ...]
    causes: tuple[str, ...]
    state: Any


def overfit_one_batch(step: Step, state: Any, batch: Any, *, steps: int, target: float) -> Verdict:
    """Trains on the same batch again and again until its loss is below the target.

    A network that cannot fit a handful of examples cannot fit many: no augmentation, no shuffling,
    and preferably no dropout stand in its way here.

    Args:
        step: (state, batch) -> (state, metrics with "loss"); jitted here, unless it already is.
            One that donates its state takes the given state with it.
        state: has `params`.
        batch: a small one.
        steps: how many to take at most.
        target: stop when the loss is below this, in the loss's own unit.
    """
    before = jax.device_get(state.params)
    run: Any = step if hasattr(step, "lower") else jax.jit(step)
    losses: list[float] = []
    while len(losses) < steps:
        state, metrics = run(state, batch)
        losses.append(float(metrics["loss"].compute()))
        if not math.isfinite(losses[-1]) or losses[-1] < target:
            break
    frozen = _unchanged(before, jax.device_get(state.params))
    causes = _causes(losses, target, frozen)
    return Verdict(not causes, losses[0], losses[-1], len(losses), frozen, causes, state)


def _unchanged(before: Any, after: Any) -> tuple[str, ...]:
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
    """Whether the loss of a fresh model is near that of guessing evenly, both in nats.

    Near means within a factor of 2: random logits of variance s^2 add about s^2 / 2 nats.
    """
    return chance / 2 <= loss <= 2 * chance


def dead_units(activations: Mapping[str, jax.Array]) -> dict[str, float]:
    """The share of features that are 0 for every example and at every position, by activation.

    A feature that never leaves 0 behind a rectifier gets no gradient and stays dead.

    Args:
        activations: by name, (B, ..., D).
    """
    return {
        name: float(np.mean(np.all(np.asarray(a) == 0, axis=tuple(range(a.ndim - 1)))))
        for name, a in activations.items()
    }
