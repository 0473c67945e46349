"""The checks of good practice before a long run; each finding names its likely cause."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.check.gradients import check_gradients
from dlcore.check.layers import Row, layer_table, render, render_parameters, totals
from dlcore.check.overfit import Verdict, dead_units, initial_loss_is_chance, overfit_one_batch
from dlcore.check.receptive_field import Box, expected_boxes, measured_receptive_field
from dlcore.paths import leaves_by_path
from dlcore.plan.cost import compiled_cost
from dlcore.plan.walk import ApplyFn
from dlcore.types import (
    Activations,
    Batch,
    Carry,
    LossFn,
    Params,
    PyTree,
    Step,
    TrainState,
    Variables,
)

_GRADIENT_EXAMPLES = 8
_DEAD_SHARE = 0.5
# The loss of one batch must fall below this share of the loss of guessing evenly, or, where that
# is not known, by this share of its first value.
_SHARE_OF_CHANCE = 0.1
_SHARE_OF_FIRST = 0.5


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: the name of the check.
        passed: whether the model is as expected.
        value: the measured value, in words.
        expected: the value that it should have.
        cause: the likely cause of a failure.
    """

    name: str
    passed: bool
    value: str
    expected: str
    cause: str = ""

    def render(self) -> str:
        """Returns the finding in one line, or two when it failed."""
        line = f"{'ok' if self.passed else 'FAIL':<4}  {self.name}: {self.value}"
        if self.expected:
            line += f" (expected {self.expected})"
        return line if self.passed else f"{line}\n      likely cause: {self.cause}"


def verdict(findings: Sequence[Finding]) -> str:
    """Returns one line that counts the failed findings.

    >>> verdict([Finding("loss", False, "9 nats", "2.3 nats", "a wrong scale")])
    '1 of 1 checks failed'
    """
    failed = sum(not finding.passed for finding in findings)
    return f"{failed} of {len(findings)} checks failed" if failed else "all checks passed"


def check_model(
    forward: ApplyFn | None,
    loss_fn: LossFn | None,
    state: TrainState,
    batch: Batch,
    *,
    step: Step,
    inputs: str | None = None,
    chance: float | None = None,
    overfit_steps: int = 300,
    overfit_share: float | None = None,
    watch: Callable[[Mapping[str, float]], str | None] = lambda metrics: None,
    emit: Callable[[str], None] = print,
) -> list[Finding]:
    """Checks a model and its training step on one small batch of any kind of data.

    The checks compare numbers, so all arguments should compute in float32, whatever precision the
    run itself will use. A job whose step is not the gradient of one loss passes None for the
    arguments that it lacks, and the checks that need them are left out.

    Args:
        forward: (variables, inputs as in the batch) -> (outputs, activations by name), in
            evaluation mode; modules that its outputs do not depend on count as unused. If the
            inputs are images (B, H, W, C), it must also take them in floating point, and its
            receptive field is checked too. None replaces the table of layers by one of parameters
            and leaves out the receptive field and the dead units.
        loss_fn: (params, model_state, batch, rng) -> (Mean, Aux), which computes in float64 when
            its parameters and its carry are float64. None leaves out the gradient check, and the
            initial loss is then the one that the first step reports.
        state: a fresh state.
        batch: real data: `inputs`, the arrays that the loss and the step need and, where some rows
            are padding, "weight" (B, ...).
        step: (state, batch) -> (state, metrics with "loss"), not donating.
        inputs: the name of the model's inputs in the batch; None together with `forward`.
        chance: the loss of guessing evenly in nats, such as log K for K classes. None where it is
            not defined: the initial loss must then only be finite.
        overfit_steps: the number of steps within which the loss of this batch must fall.
        overfit_share: the loss must fall below this share of `chance`, by default 0.1; without
            `chance` below this share of its first value, by default 0.5.
        watch: returns the problem in the metrics of the last step of the attempt to overfit, if
            any.
        emit: gets the table and then each finding as text, as soon as it is known.

    Returns:
        The findings; the run should exit with status 1 unless all passed.

    Raises:
        ValueError: for `forward` without `inputs` or the reverse, or a step without the metric
            "loss".
    """
    if (forward is None) != (inputs is None):
        raise ValueError(
            f"forward is {'None' if forward is None else 'given'}, but inputs is {inputs!r}: "
            "give both, or None for both"
        )
    # Every check reuses the one compiled step.
    step = step if hasattr(step, "lower") else jax.jit(step)
    metrics = jax.eval_shape(step, state, batch)[1]
    if "loss" not in metrics:
        raise ValueError(
            f"the step reports {', '.join(metrics) or 'no metrics'}, but the checks follow its "
            'metric "loss": add one that falls while the model learns'
        )
    variables = {"params": state.params, **(state.model_state or {})}

    def checks() -> Iterator[Finding]:
        if forward is not None and inputs is not None:
            example = jax.ShapeDtypeStruct((1, *batch[inputs].shape[1:]), batch[inputs].dtype)
            rows = layer_table(forward, variables, example)
            emit(render(rows))
            yield _used_parameters(rows)
            if len(example.shape) == 4:
                yield _receptive_field(forward, variables, example, state.rng)
        else:
            emit(render_parameters(state.params))
            yield _finite_parameters(state.params)
        yield _compiled_step(step, state, batch)
        yield _initial_loss(loss_fn, step, state, batch, chance)
        if loss_fn is not None:
            yield _gradients(loss_fn, state, batch)
        finding, overfitted = _overfit(step, state, batch, chance, overfit_steps, overfit_share)
        yield finding
        if trouble := watch(overfitted.metrics):
            yield Finding("training metrics", False, "a trouble", "none", trouble)
        if forward is not None and inputs is not None:
            yield _dead_units(forward, overfitted.state, batch, inputs)

    findings = []
    for finding in checks():
        emit(finding.render())
        findings.append(finding)
    return findings


def _used_parameters(rows: Sequence[Row]) -> Finding:
    unused = [row.path or "(model)" for row in rows if row.operation == "unused"]
    return Finding(
        "parameters",
        not unused,
        f"{totals(rows)[0]:,}, " + (f"never used: {', '.join(unused)}" if unused else "all used"),
        "every module runs in the forward pass",
        "a module is created, but its result is not part of the output",
    )


def _finite_parameters(params: Params) -> Finding:
    leaves = leaves_by_path(params)
    count = sum(np.size(leaf) for leaf in leaves.values())
    bad = [path for path, leaf in leaves.items() if not jnp.isfinite(leaf).all()]
    return Finding(
        "parameters",
        count > 0 and not bad,
        f"{count:,}, " + (f"not finite: {', '.join(bad)}" if bad else "all finite"),
        "at least one number, and every number finite",
        "an initialiser that divides by zero or overflows, or parameters that were never made",
    )


def _receptive_field(
    forward: ApplyFn, variables: Variables, image: jax.ShapeDtypeStruct, key: jax.Array
) -> Finding:
    """Checks the activation that sees most of the image, but not all of it."""
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

    def on_noise(variables: Variables, noise: jax.Array) -> tuple[PyTree, Activations]:
        # Normal noise, spread over the range of 8-bit pixels where the images have these.
        integer = jnp.issubdtype(image.dtype, jnp.integer)
        return forward(variables, 128 + 64 * noise if integer else noise)

    box = measured_receptive_field(
        on_noise, variables, image.shape[1:], activation=activation, key=key
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


def _compiled_step(step: Step, state: TrainState, batch: Batch) -> Finding:
    cost = compiled_cost(step, state, batch)
    return Finding(
        "compiled step",
        True,
        f"{cost.flops / 1e9:.3g} GFLOP, {cost.bytes_accessed / 1e6:.3g} MB moved, "
        f"peak memory {cost.peak_bytes / 1e6:.3g} MB",
        "",
    )


def _initial_loss(
    loss_fn: LossFn | None, step: Step, state: TrainState, batch: Batch, chance: float | None
) -> Finding:
    if loss_fn is None:
        mean = step(state, batch)[1]["loss"]
    else:
        batch = _with_carry(batch, state.carry)
        mean, _ = jax.jit(loss_fn)(state.params, state.model_state, batch, state.rng)
    loss = float(mean.compute())
    if chance is None:
        return Finding(
            "initial loss",
            math.isfinite(loss),
            f"{loss:.3f}",
            "a finite number",
            "inputs that are not finite, an initial scale that is too large, a logarithm or a root "
            "at 0, or a batch of which nothing counts",
        )
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


def _with_carry(batch: Batch, carry: Carry) -> Batch:
    return batch if carry is None else {**batch, "carry": carry}


def _gradients(loss_fn: LossFn, state: TrainState, batch: Batch) -> Finding:
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


def _overfit(
    step: Step,
    state: TrainState,
    batch: Batch,
    chance: float | None,
    steps: int,
    share: float | None,
) -> tuple[Finding, Verdict]:
    if chance is None:
        options = {"share": _SHARE_OF_FIRST if share is None else share}
    else:
        options = {"target": chance * (_SHARE_OF_CHANCE if share is None else share)}
    found = overfit_one_batch(step, state, batch, steps=steps, **options)
    finding = Finding(
        "overfit one batch",
        found.passed,
        f"loss {found.first_loss:.3f} -> {found.last_loss:.3f} in {found.steps} steps",
        f"< {found.target:.3f} within {steps} steps, every parameter moving",
        "; ".join(found.causes),
    )
    return finding, found


def _dead_units(forward: ApplyFn, state: TrainState, batch: Batch, inputs: str) -> Finding:
    examples = jnp.asarray(batch[inputs])
    if "weight" in batch:
        weight = np.asarray(batch["weight"])
        examples = examples[weight.any(axis=tuple(range(1, weight.ndim)))]
    variables = {"params": state.params, **(state.model_state or {})}
    shares = dead_units(jax.jit(forward)(variables, examples)[1])
    name, share = max(shares.items(), key=lambda item: item[1], default=("none", 0.0))
    return Finding(
        "dead units",
        share <= _DEAD_SHARE,
        f"at most {share:.0%} of an activation's features are 0 for the whole batch ({name})",
        f"at most {_DEAD_SHARE:.0%} after overfitting",
        "a learning rate that is too high, or biases far below zero",
    )
