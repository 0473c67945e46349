"""Checks derivatives against differences of the function itself, in float64.

Along a direction v the central difference (f(p + h v) - f(p - h v)) / 2h differs from the slope
<grad f, v> by O(h^2) for smooth f, and by about eps |f| / h through rounding. A sweep over h finds
where both errors are small. At a kink (a rectifier at 0, a tie of a maximum) the slopes from the
left and from the right stay apart however small h is; this is reported, but is no failure as long
as the derivative lies between them.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.paths import leaves_by_path
from dlcore.types import Params

Outcome = Literal["ok", "kink", "wrong"]


@dataclasses.dataclass(frozen=True)
class Probe:
    """The slope of the function along one direction.

    Attributes:
        name: the path of the leaf that was moved, or "all <n>" for a direction in all of them.
        derived: the slope by automatic differentiation.
        difference: the slope by central difference, at the `step` that agrees best.
        step: that h, in units of the parameters (the direction has length 1).
        relative_error: |derived - difference| / max(|derived|, |difference|), where slopes that
            are too small for the difference to resolve count as the smallest that it does.
        outcome: "ok", "kink" or "wrong".
    """

    name: str
    derived: float
    difference: float
    step: float
    relative_error: float
    outcome: Outcome


@dataclasses.dataclass(frozen=True)
class GradientReport:
    """The result of `check_gradients`.

    Attributes:
        probes: one for each leaf, then one for each direction in all leaves.
        jvp_error: the largest relative difference of forward and reverse mode over the directions;
            None where a rule of the function (`jax.custom_vjp`) allows no forward mode.
        tolerance: the relative error that was allowed.
    """

    probes: tuple[Probe, ...]
    jvp_error: float | None
    tolerance: float

    @property
    def wrong(self) -> tuple[str, ...]:
        """The names of the probes whose derivative is wrong."""
        return tuple(probe.name for probe in self.probes if probe.outcome == "wrong")

    @property
    def passed(self) -> bool:
        """Returns whether no probe is wrong, at least one met no kink, and both modes agree."""
        modes_agree = self.jvp_error is None or self.jvp_error <= self.tolerance
        return modes_agree and not self.wrong and any(p.outcome == "ok" for p in self.probes)

    def render(self) -> str:
        """Returns one aligned line for each probe."""
        width = max(len(probe.name) for probe in self.probes)
        lines = [
            f"{p.name:<{width}}  {p.outcome:<5}  derivative {p.derived:+.6e}  difference "
            f"{p.difference:+.6e}  relative error {p.relative_error:.1e} at h = {p.step:.0e}"
            for p in self.probes
        ]
        if self.jvp_error is None:
            return "\n".join([*lines, "forward mode not available (custom_vjp)"])
        return "\n".join([*lines, f"forward against reverse mode: {self.jvp_error:.1e}"])


def check_gradients(
    loss: Callable[[Params], jax.Array],
    params: Params,
    *,
    key: jax.Array,
    directions: int = 3,
    steps: Sequence[float] = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8),
    tolerance: float = 1e-6,
) -> GradientReport:
    """Compares the gradient of `loss` with central differences.

    Args:
        loss: parameters -> scalar. It is called with float64 parameters and must then compute in
            float64 (that is, follow the dtype of its parameters), without randomness.
        params: a pytree of floating-point arrays.
        key: the key that draws the directions.
        directions: the number of random directions in all leaves together; each leaf has one more
            of its own.
        steps: the displacements h to try, each along a direction of length 1.
        tolerance: the relative error allowed, beside the rounding of the difference itself.

    Raises:
        ValueError: when the loss is not a float64 scalar, so that differences would be noise.
    """
    # The float64 parameters meet float32 data, and the results must be float64.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        origin = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), params)
        result = jax.eval_shape(loss, origin)
        if result.shape != () or result.dtype != jnp.float64:
            raise ValueError(
                f"the loss of float64 parameters is {result.dtype}{list(result.shape)}, but a "
                "float64 scalar is needed: some operation casts to a fixed dtype"
            )

        @jax.jit
        def along(origin: Params, direction: Params, steps: jax.Array) -> jax.Array:
            def at(step: jax.Array) -> jax.Array:
                return loss(jax.tree.map(lambda p, v: p + step * v, origin, direction))

            return jax.lax.map(at, steps)

        gradient = jax.device_get(jax.jit(jax.grad(loss))(origin))
        offsets = jnp.asarray([0.0, *(s * h for h in steps for s in (1, -1))])
        probes, tangents = [], []
        for name, direction in _directions(origin, key, directions):
            values = np.asarray(along(origin, direction, offsets))
            products = jax.tree.map(np.vdot, gradient, direction)
            derived = float(sum(jax.tree.leaves(products)))
            probes.append(_probe(name, derived, values, steps, tolerance))
            tangents.append((derived, direction))
        jvp_error = _jvp_error(loss, origin, tangents[-directions:] if directions else [])
    return GradientReport(tuple(probes), jvp_error, tolerance)


def _directions(origin: Params, key: jax.Array, count: int) -> list[tuple[str, Params]]:
    """Draws random directions of length 1: one within each leaf, then `count` in all leaves."""
    leaves, structure = jax.tree.flatten(origin)
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    names = [*leaves_by_path(origin), *(f"all {number}" for number in range(count))]
    drawn = []
    for number, name in enumerate(names):
        components = [
            random.normal(size=leaf.shape)
            if number == index or number >= len(leaves)
            else np.zeros(leaf.shape)
            for index, leaf in enumerate(leaves)
        ]
        length = math.sqrt(sum(float(np.vdot(leaf, leaf)) for leaf in components))
        drawn.append((name, jax.tree.unflatten(structure, [leaf / length for leaf in components])))
    return drawn


def _probe(
    name: str, derived: float, values: np.ndarray, steps: Sequence[float], tolerance: float
) -> Probe:
    """Judges one direction from the function's values at 0 and at +h, -h for each step."""
    here, sizes = values[0], np.asarray(steps)
    right, left = (values[1::2] - here) / sizes, (here - values[2::2]) / sizes
    central = (right + left) / 2
    rounding = 10 * np.finfo(np.float64).eps * max(np.abs(values).max(), 1e-300) / sizes
    # Below this the rounding alone could pass the tolerance: such a slope counts as zero.
    resolved = rounding / tolerance
    scale = np.maximum(np.maximum(np.abs(central), abs(derived)), resolved)
    errors = np.abs(central - derived) / scale
    best = int(np.argmin(np.where(np.isfinite(errors), errors, np.inf)))

    outcome: Outcome = "wrong"
    if errors[best] <= tolerance:
        outcome = "ok"
    else:
        # Smooth: the two sides approach each other as h does. Kink: they stay apart.
        small = int(np.argmin(sizes))
        low, high = sorted((left[small], right[small]))
        margin = tolerance * scale[small]
        apart = high - low > 0.3 * np.abs(right - left).max() and high - low > 10 * margin
        if apart and low - margin <= derived <= high + margin:
            outcome = "kink"
    return Probe(
        name=name,
        derived=derived,
        difference=float(central[best]),
        step=float(sizes[best]),
        relative_error=float(errors[best]),
        outcome=outcome,
    )


def _jvp_error(
    loss: Callable[[Params], jax.Array], origin: Params, tangents: Sequence[tuple[float, Params]]
) -> float | None:
    """Returns the largest relative difference of <grad, v> and the forward derivative along v."""
    forward = jax.jit(lambda direction: jax.jvp(loss, (origin,), (direction,))[1])
    worst = 0.0
    for derived, direction in tangents:
        try:
            slope = float(forward(direction))
        except TypeError as error:
            if "custom_vjp" in str(error):
                return None
            raise
        worst = max(worst, abs(slope - derived) / max(abs(slope), abs(derived), 1e-300))
    return worst
