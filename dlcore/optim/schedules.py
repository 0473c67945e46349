"""Learning-rate schedules by name, each with a linear warm-up.

A schedule maps the number of steps already taken, t, to the learning rate of the next one.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from dlcore.errors import InputError, choose

Schedule = Callable[[jax.typing.ArrayLike], jax.typing.ArrayLike]

# The names of the schedules of the learning rate.
SCHEDULES = ("constant", "cosine", "linear", "step", "inverse_sqrt", "wsd")


def schedule(
    name: str,
    peak: float,
    *,
    steps: int,
    warmup_steps: int = 0,
    boundaries: Sequence[int] = (),
    factor: float = 0.1,
    decay_share: float = 0.2,
) -> Schedule:
    """Makes the schedule that rises linearly from 0 to `peak` and then follows its name.

    With w warm-up steps the rate at t < w is peak * t / w; from t = w on it is

    - constant: peak.
    - cosine: peak / 2 * (1 + cos(pi * (t - w) / (steps - w))) (Loshchilov & Hutter 2017, eq. 5,
      without restarts), 0 from t = steps on.
    - linear: peak * (steps - t) / (steps - w), 0 from t = steps on.
    - step: peak, multiplied by `factor` at each of the boundaries (from t = boundary on).
    - inverse_sqrt: peak * sqrt(w / t) (Vaswani et al. 2017, eq. 3); without warm-up
      peak * sqrt(1 / (t + 1)).
    - wsd (warm-up, stable, decay; Hu et al. 2024, section 4.2, with a linear decay): peak until
      the last `decay_share` of the steps, over which it falls linearly to 0.

    Args:
        name: one of `SCHEDULES`.
        peak: the largest learning rate.
        steps: the length of the run, warm-up included.
        warmup_steps: the length of the warm-up, w.
        boundaries: increasing values of t between the warm-up and the end; required for "step" and
            for no other schedule.
        factor: the factor of "step" at each boundary.
        decay_share: the share of the steps over which "wsd" decays, in (0, 1].

    Raises:
        InputError: for an unknown name and for numbers that do not fit together.

    >>> rate = schedule("linear", 1.0, steps=6, warmup_steps=2)
    >>> [float(rate(t)) for t in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    >>> rate = schedule("step", 1.0, steps=6, boundaries=[2, 4], factor=0.5)
    >>> [float(rate(t)) for t in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    if name not in SCHEDULES:
        raise choose("schedule", name, SCHEDULES)
    if not (math.isfinite(peak) and peak >= 0):
        raise InputError(f"learning rate {peak} is not a number >= 0; give one, such as 0.001")
    if steps < 1:
        raise InputError(f"a schedule over {steps} steps is empty; give steps >= 1")
    if not 0 <= warmup_steps <= steps:
        raise InputError(
            f"warmup_steps {warmup_steps} is not between 0 and the run's {steps} steps; "
            "shorten the warm-up or lengthen the run"
        )
    if not 0 < decay_share <= 1:
        raise InputError(f"decay share {decay_share} is not a share of the run; give one in (0, 1]")
    if bool(boundaries) != (name == "step"):
        raise InputError(
            f"schedule {name!r} was given the boundaries {list(boundaries)}; "
            "'step' needs some, the others take none"
        )
    edges = [warmup_steps, *boundaries, steps]
    if boundaries and any(low >= high for low, high in itertools.pairwise(edges)):
        raise InputError(
            f"boundaries {list(boundaries)} do not increase between the warm-up's end "
            f"{warmup_steps} and the run's end {steps}; choose others"
        )
    after = _after_warmup(
        name,
        peak,
        steps - warmup_steps,
        warmup_steps,
        [b - warmup_steps for b in boundaries],
        factor,
        min(round(decay_share * steps), steps - warmup_steps),
    )
    if warmup_steps == 0:
        return after
    warmup = optax.linear_schedule(0.0, peak, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


def _after_warmup(
    name: str,
    peak: float,
    steps: int,
    warmup_steps: int,
    boundaries: list[int],
    factor: float,
    decay_steps: int,
) -> Schedule:
    """Makes the schedule after the warm-up; its t and boundaries count from the warm-up's end."""
    match name:
        case "constant":
            return optax.constant_schedule(peak)
        case "cosine":
            return optax.cosine_decay_schedule(peak, max(steps, 1))
        case "linear":
            return optax.linear_schedule(peak, 0.0, max(steps, 1))
        case "wsd":
            return optax.linear_schedule(peak, 0.0, max(decay_steps, 1), steps - decay_steps)
        case "step":
            return optax.piecewise_constant_schedule(peak, dict.fromkeys(boundaries, factor))
        case _:
            start = max(warmup_steps, 1)
            return lambda t: peak * jnp.sqrt(start / (start + jnp.maximum(t, 0)))
