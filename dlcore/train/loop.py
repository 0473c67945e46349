"""The training loop. It knows only the step: what is trained, and how, is the step's business."""

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from dlcore.errors import Diverged
from dlcore.runtime import Compiled
from dlcore.train.checkpoint import Checkpoints
from dlcore.train.evaluation import Best, HostMean, HostMeans
from dlcore.train.logs import RunLog
from dlcore.train.signals import StopRequest
from dlcore.train.state import Batch, Metrics, TrainState

Evaluate = Callable[[TrainState], dict[str, float]]


@dataclasses.dataclass
class Memory:
    """What the loop remembers from step to step; a checkpoint holds it beside the state.

    Attributes:
        window: the means since the last report.
        skipped: how many bad steps came in a row.
        best: the best evaluation yet, if one is followed.
        evaluation: the last evaluation's metrics.
    """

    window: HostMeans = dataclasses.field(default_factory=HostMeans)
    skipped: int = 0
    best: Best | None = None
    evaluation: dict[str, float] = dataclasses.field(default_factory=dict)

    def saved(self) -> dict[str, Any]:
        """JSON values that `load` understands."""
        return {
            "window": {name: [mean.total, mean.weight] for name, mean in self.window.items()},
            "skipped": self.skipped,
            "best": self.best and self.best.saved(),
            "evaluation": self.evaluation,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Continues from what `saved` gave."""
        self.window = HostMeans(
            {name: HostMean(total, weight) for name, (total, weight) in saved["window"].items()}
        )
        self.skipped = saved["skipped"]
        self.evaluation = saved["evaluation"]
        if self.best is not None and saved["best"] is not None:
            self.best.load(saved["best"])


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        state: the state after the last step.
        reason: "finished", "patience", or the signal that ended it.
        evaluation: the last evaluation's metrics.
        steps: how many steps this call took.
        seconds: how long they took, the first one left out.
        first_step: when the first step was done, by `time.perf_counter`; None without a step.
        recompilations: how often the step was compiled again.
    """

    state: TrainState
    reason: str
    evaluation: dict[str, float]
    steps: int
    seconds: float
    first_step: float | None
    recompilations: int


def fit(
    step: Compiled,
    state: TrainState,
    batches: Callable[[int], Iterator[Batch]],
    *,
    steps: int,
    log: RunLog | None = None,
    log_every: int = 100,
    evaluate: Evaluate | None = None,
    eval_every: int = 0,
    split: str = "test",
    checkpoints: Checkpoints | None = None,
    checkpoint_every: int = 0,
    memory: Memory | None = None,
    patience_for_skipped: int = 10,
) -> Result:
    """Trains until `steps` steps are done, the patience is used up or a signal comes.

    Each step is dispatched before the metrics of the one before are read, so the device never
    waits for the host. Reports, evaluations and checkpoints come in this order after a step, so
    that a run continued from any checkpoint writes what the uninterrupted run would have written.

    Args:
        step: compiled (state, batch) -> (state, metrics); the state is donated. A metric
            "skipped", as `guard` gives it, marks bad steps.
        state: where to start, at `state.step`.
        batches: the batches from a given number on; batch n is that of step n + 1.
        steps: the number of the last step.
        log: where to report; None reports nothing.
        log_every: steps between reports of the training metrics, averaged since the last one.
        evaluate: the metrics of a state on held-out data, or None.
        eval_every: steps between evaluations; 0 evaluates only after the last step.
        split: the name of the held-out data in the reports.
        checkpoints: where to save, or None. Saved are the last step, each new best evaluation
            and, on SIGTERM or Ctrl-C, the step at hand.
        checkpoint_every: further steps to save at; 0 for none.
        memory: what a restored checkpoint remembered; its `best` says which evaluation is the
            best and when to stop. A new one by default.
        patience_for_skipped: how many bad steps in a row end the run.

    Raises:
        Diverged: after that many bad steps in a row; names the steps and the first bad batch.
        InputError: when a log or a checkpoint cannot be written.
    """
    memory = memory or Memory()
    start = int(state.step)
    pending: deque[tuple[int, Metrics]] = deque()
    reported, reported_at = start, time.perf_counter()
    first_step: float | None = None
    recompilations = 0

    def report(number: int) -> None:
        nonlocal reported, reported_at, recompilations
        now = time.perf_counter()
        if log is not None:
            log.metrics(number, "train", memory.window.compute())
            if number > reported:
                log.scalars(
                    number, {"speed/steps_per_second": (number - reported) / (now - reported_at)}
                )
            if step.traces - 1 > recompilations:
                log.say(f"the step was compiled again by step {number}: batches changed shape")
        recompilations = max(0, step.traces - 1)
        memory.window = HostMeans()
        reported, reported_at = number, now

    def read(*, keep: int) -> None:
        """Reads the metrics of all dispatched steps but the last `keep`."""
        while len(pending) > keep:
            number, metrics = pending.popleft()
            memory.window.add(metrics)
            bad = "skipped" in metrics and np.asarray(metrics["skipped"].total) > 0
            memory.skipped = memory.skipped + 1 if bad else 0
            if memory.skipped >= patience_for_skipped:
                raise Diverged(_diagnosis(number, memory.skipped, batches))
            if number % log_every == 0:
                report(number)

    def save(number: int, value: float | None = None) -> None:
        if checkpoints is not None:
            checkpoints.save(number, state, memory.saved(), value=value)

    reason = "finished"
    number = start
    with StopRequest() as stop:
        source = batches(start) if start < steps else iter(())
        while number < steps:
            state, metrics = step(state, next(source))
            number += 1
            pending.append((number, metrics))
            if log is not None:
                log.advance()
            if first_step is None:
                jax.block_until_ready(metrics)
                first_step = time.perf_counter()
            if (number - 1) % log_every == 0:
                read(keep=1)

            improved = False
            if evaluate and (number == steps or (eval_every and number % eval_every == 0)):
                read(keep=0)
                memory.evaluation = evaluate(state)
                if log is not None:
                    log.metrics(number, split, memory.evaluation)
                if memory.best is not None:
                    improved = memory.best.update(number, memory.evaluation)
                    if memory.best.exhausted:
                        reason = "patience"
            if stop.name and number < steps:
                reason = stop.name
            last = number == steps or reason != "finished"
            if last or improved or (checkpoint_every and number % checkpoint_every == 0):
                read(keep=0)
                save(number, memory.best.value if improved and memory.best else None)
            if last:
                break
    jax.block_until_ready(state)
    seconds = time.perf_counter() - first_step if first_step is not None else 0.0
    if checkpoints is not None:
        checkpoints.wait()
    return Result(
        state, reason, memory.evaluation, number - start, seconds, first_step, recompilations
    )


def _diagnosis(last: int, count: int, batches: Callable[[int], Iterator[Batch]]) -> str:
    """The error after `count` bad steps in a row, with what the first bad batch holds."""
    first = last - count + 1
    batch = next(batches(first - 1))
    fields = []
    for name, leaf in batch.items():
        bad = int(np.size(leaf) - np.isfinite(leaf).sum())
        fields.append(f"{name} {bad} values not finite" if bad else f"{name} finite")
    return (
        f"the loss or its gradient was not finite in {count} steps in a row, {first} to {last}; "
        f"the parameters are still those of step {first - 1}; the first bad batch is number "
        f"{first - 1} ({', '.join(fields)}); lower --learning_rate, set --clip_norm, or mend the "
        "data, then continue from the last checkpoint"
    )
