"""Evaluation over a whole split, and early stopping by its metrics."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Literal

import jax
import numpy as np

from dlcore.runtime import processes
from dlcore.types import Batch, Mean, Measures, MetricFn, PyTree, Rows, TrainState


def evaluate(
    metric_fn: MetricFn,
    state: TrainState,
    batches: Iterable[Batch],
) -> dict[str, Any]:
    """Returns the metrics over all batches, each divided once, at the end; NaN for zero weight.

    A mean whose total and weight are vectors, such as one entry per class, becomes the mean of the
    quotients whose weight is not 0 (a macro average). `Rows` become NumPy arrays of the values of
    all examples, in the order of the batches and without the padding.

    Args:
        metric_fn: compiled (state, batch) -> (measures, carry); rows of weight 0 do not count.
        state: the state to evaluate; it is not changed. Its carry belongs to the training data, so
            the first batch must not build on it.
        batches: the whole split, the last batch padded to full size.
    """
    sums: dict[str, np.ndarray] = {}
    rows: dict[str, list[PyTree]] = {}

    def add(measures: Measures) -> None:
        for name, measure in measures.items():
            if isinstance(measure, Mean):  # in float64, so that many batches lose no digits
                pair = np.array([measure.total, measure.weight], np.float64)
                sums[name] = sums[name] + pair if name in sums else pair
            else:
                rows.setdefault(name, []).append(_real(measure))

    waiting: Measures = {}
    for batch in batches:
        processes.heartbeat()
        measures, carry = metric_fn(state, batch)
        if carry is not None:
            state = state.replace(carry=carry)
        add(waiting)  # of the batch before: the device already works on this one
        waiting = measures
    add(waiting)
    means = {name: _divided(*pair) for name, pair in sorted(sums.items())}
    return means | {name: _together(parts) for name, parts in sorted(rows.items())}


def _real(rows: Rows) -> PyTree:
    """Returns the values of the rows that are not padding."""
    real = np.asarray(rows.weight) > 0
    return jax.tree.map(lambda leaf: np.asarray(leaf)[real], rows.values)


def _together(parts: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _divided(total: np.ndarray, weight: np.ndarray) -> float:
    counted = weight > 0
    return float(np.mean(total[counted] / weight[counted])) if counted.any() else math.nan


@dataclasses.dataclass
class Best:
    """A follower of one metric over the evaluations, which knows its best value and when to stop.

    Attributes:
        metric: the name of the metric in an evaluation.
        mode: "max" or "min", whichever is better.
        patience: the number of evaluations in a row without a new best that end the run; with None
            they never end it.
        minimum_change: by how much a value must be better to count as better.
        value: the best value yet.
        step: the step at which it was seen.
        waited: the number of evaluations since then.
    """

    metric: str
    mode: Literal["max", "min"] = "max"
    patience: int | None = None
    minimum_change: float = 0.0
    value: float | None = None
    step: int = 0
    waited: int = 0

    def update(self, step: int, metrics: dict[str, float]) -> bool:
        """Takes in an evaluation and returns whether it is the best yet, which NaN never is.

        Raises:
            KeyError: when the evaluation has no such metric.
        """
        value = metrics[self.metric]
        gain = math.inf if self.value is None else value - self.value
        if self.mode == "min" and self.value is not None:
            gain = -gain
        if not math.isnan(value) and gain > self.minimum_change:
            self.value, self.step, self.waited = value, step, 0
            return True
        self.waited += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Returns whether the patience is used up."""
        return self.patience is not None and self.waited >= self.patience

    def saved(self) -> dict[str, Any]:
        """Returns the values that a checkpoint must hold."""
        return {"value": self.value, "step": self.step, "waited": self.waited}

    def load(self, saved: dict[str, Any]) -> None:
        """Continues from what `saved` returned."""
        self.value, self.step, self.waited = saved["value"], saved["step"], saved["waited"]
