"""The checks of good practice before a long run: each finding names its likely cause."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.check.gradients import check_gradients
from dlcore.check.layers import layer_table, render, totals
from dlcore.check.overfit import (
    Step,
    dead_units,
    initial_loss_is_chance,
    overfit_one_batch,
)
from dlcore.check.receptive_field import Box, expected_boxes, measured_receptive_field
from dlcore.check.walk import ApplyFn
from dlcore.plan.cost import compiled_cost

_GRADIENT_EXAMPLES = 8
_OVERFIT_STEPS = 300
_DEAD_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: what was checked.
        passed: whether it is as expected.
        value: what was found, in words.
        expected: what should be.
        cause: what is probably wrong; empty when it passed.
    """

    name: str
    passed: bool
    value: str
    expected: str
    cause: str = ""

    def render(self) -> str:
        """The finding in one line, or two when it failed."""
        line = f"{'ok' if self.passed else 'FAIL':<4}  {self.name}: {self.value}"
        if self.expected:
            line += f" (expected {self.expected})"
        return line if self.passed else f"{line}\n      likely cause: {self.cause}"


def render_findings(findings: Sequence[Finding]) -> str:
    """All findings and a last line that counts them."""
    failed = sum(not finding.passed for finding in findings)
    verdict = f"{failed} of {len(findings)} checks failed" if failed else "all checks passed"
    return "\n".join([*(finding.render() for finding in findings), verdict])


def check_model(
    forward: ApplyFn,
    loss_fn: Callable[..., Any],
    state: Any,
    batch: dict[str, Any],
    *,
    step: Step,
    inputs: str,
    chance: float,
    emit: Callable[[str], None] = print,
) -> list[Finding]:
    """Checks a model and its training step on one batch: of images, tokens or anything else.

    Args:
        forward: (variables, inputs as in the batch) -> (outputs, activations by name), in
            evaluation mode; what its outputs do not need counts as unused. Images (B, H, W, C) it
            must also take in floating point, and then its receptive field is checked too.
        loss_fn: (params, model_state, batch, rng) -> (Mean, Aux); computes in float64 when its
            parameters and its carry are.
        state: a fresh state with `params`, `model_state`, `rng`, `carry`.
        batch: small, of real data; `inputs`, "weight" (B, ...) and what the loss needs.
        step: (state, batch) -> (state, metrics with "loss"), not donating.
        inputs: the name of the model's inputs in the batch.
        chance: the loss of guessing evenly in nats, such as log K of K classes.
        emit: is given the layer table and then each finding as text, as soon as it is known.

    Returns:
        The findings; the run should exit with status 1 unless all passed.
    """
    variables = {"params": state.params, **state.model_state}
    example = jax.ShapeDtypeStruct((1, *batch[inputs].shape[1:]), batch[inputs].dtype)
    rows = layer_table(forward, variables, example)
    emit(render(rows))

    def checks() -> Iterator[Finding]:
        yield _parameters(rows)
        if len(example.shape) == 4:
            yield _receptive_field(forward, variables, example, state.rng)
        yield _compiled_step(step, state, batch)
        yield _initial_loss(loss_fn, state, batch, chance)
        yield _gradients(loss_fn, state, batch)
        verdict = overfit_one_batch(step, state, batch, steps=_OVERFIT_STEPS, target=0.1 * chance)
        yield Finding(
            "overfit one batch",
            verdict.passed,
            f"loss {verdict.first_loss:.3f} -> {verdict.last_loss:.3f} in {verdict.steps} steps",
            f"< {0.1 * chance:.3f} within {_OVERFIT_STEPS} steps, every parameter moving",
            "; ".join(verdict.causes),
        )
        yield _dead_units(forward, verdict.state, batch, inputs)

    findings = []
    for finding in checks():
        emit(finding.render())
        findings.append(finding)
    return findings


def _parameters(rows: Sequence[Any]) -> Finding:
    unused = [row.path or "(model)" for row in rows if row.operation == "unused"]
    return Finding(
        "parameters",
        not unused,
        f"{totals(rows)[0]:,}, " + (f"never used: {', '.join(unused)}" if unused else "all used"),
        "every module runs in the forward pass",
        "a module is created, but its result is not part of the output",
    )


def _receptive_field(
    forward: ApplyFn, variables: Any, image: jax.ShapeDtypeStruct, key: jax.Array
) -> Finding:
    """Compares the activation that sees most of the image, yet not all of it."""
    _, shapes = jax.eval_shape(forward, variables, image)
    boxes = {
        name: box
        for name, box in expected_boxes(forward, variables, image).items()
        if shapes[name].ndim == len(image.shape)
    }
    name = "receptive field"
    if not boxes:
        return Finding(name, True, "no activation has spatial axes", "")
    extents = tuple((0, extent) for extent in image.shape[1:-1])
    partial = {name: box for name, box in boxes.items() if box != extents} or boxes
    activation = max(partial, key=lambda name: math.prod(b - a for a, b in partial[name]))

    def on_drawn(variables: Any, drawn: jax.Array) -> Any:
        # Standard normal draws, spread over the range of 8-bit pixels where the images are that.
        integer = jnp.issubdtype(image.dtype, jnp.integer)
        return forward(variables, 128 + 64 * drawn if integer else drawn)

    box = measured_receptive_field(
        on_drawn, variables, image.shape[1:], activation=activation, key=key
    )
    return Finding(
        f"{name} of {activation}",
        box == boxes[activation],
        f"by gradient {_pixels(box)}",
        f"by formula {_pixels(boxes[activation])}",
        "part of the model passes no gradient (dead units, a branch that starts at zero)",
    )


def _pixels(box: Box) -> str:
    size = "x".join(str(end - start) for start, end in box)
    return f"{size} pixels at {', '.join(f'{start}..{end - 1}' for start, end in box)}"


def _compiled_step(step: Step, state: Any, batch: Any) -> Finding:
    cost = compiled_cost(step, state, batch)
    return Finding(
        "compiled step",
        True,
        f"{cost.flops / 1e9:.3g} GFLOP, {cost.bytes_accessed / 1e6:.3g} MB moved, "
        f"peak memory {cost.peak_bytes / 1e6:.3g} MB",
        "",
    )


def _initial_loss(loss_fn: Callable[..., Any], state: Any, batch: Any, chance: float) -> Finding:
    batch = _with_carry(batch, state.carry)
    mean, _ = jax.jit(loss_fn)(state.params, state.model_state, batch, state.rng)
    loss = float(mean.compute())
    choices = math.exp(min(chance, 16))
    guess = f"log {choices:.0f} = " if math.isclose(choices, round(choices), rel_tol=1e-9) else ""
    return Finding(
        "initial loss",
        initial_loss_is_chance(loss, chance),
        f"{loss:.3f} nats",
        f"{guess}{chance:.3f} within a factor of 2",
        "inputs that are not normalised, an initial scale that is too large, or a heavy penalty"
        if loss > chance or math.isnan(loss)
        else "labels that leak into the inputs, the wrong number of classes, or a wrong mean",
    )


def _with_carry(batch: Any, carry: Any) -> Any:
    return batch if carry is None else {**batch, "carry": carry}


def _gradients(loss_fn: Callable[..., Any], state: Any, batch: Any) -> Finding:
    carry = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.carry)
    few = jax.tree.map(
        lambda leaf: np.asarray(leaf)[:_GRADIENT_EXAMPLES], _with_carry(batch, carry)
    )
    random = np.random.default_rng(0)
    # Biases of 0 over blank pixels put rectifiers exactly on their kink: a small displacement
    # leaves it, and a derivative is as right or wrong beside its point as at it.
    moved = jax.tree.map(
        lambda leaf: np.asarray(leaf) + 0.01 * random.normal(size=leaf.shape), state.params
    )
    report = check_gradients(
        lambda params: loss_fn(params, state.model_state, few, state.rng)[0].compute(),
        moved,
        key=state.rng,
    )
    kinks = sum(probe.outcome == "kink" for probe in report.probes)
    worst = max((p.relative_error for p in report.probes if p.outcome != "kink"), default=math.nan)
    value = f"{len(report.probes)} directions, largest relative error {worst:.1e}, {kinks} kinks"
    return Finding(
        "gradients",
        report.passed,
        value + (f", wrong: {', '.join(report.wrong)}" if report.wrong else ""),
        f"central differences in float64 to {report.tolerance:.0e}",
        "a custom derivative that is wrong, a stop_gradient, a straight-through estimator, or a "
        "cast to a narrower dtype",
    )


def _dead_units(forward: ApplyFn, state: Any, batch: Any, inputs: str) -> Finding:
    weight = np.asarray(batch["weight"])
    real = weight.any(axis=tuple(range(1, weight.ndim)))
    variables = {"params": state.params, **state.model_state}
    shares = dead_units(jax.jit(forward)(variables, jnp.asarray(batch[inputs])[real])[1])
    name, share = max(shares.items(), key=lambda item: item[1], default=("none", 0.0))
    return Finding(
        "dead units",
        share <= _DEAD_SHARE,
        f"at most {share:.0%} of an activation's features are 0 for the whole batch ({name})",
        f"at most {_DEAD_SHARE:.0%} after overfitting",
        "a learning rate that is too high, or biases far below zero",
    )
