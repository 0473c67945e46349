"""The training loop. It knows only the step: what is trained, and how, is the step's business."""

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from dlcore.errors import Diverged
from dlcore.runtime import Layout, compile_step, processes
from dlcore.runtime.layout import Jit
from dlcore.train.accounting import Account, CountFlops, Traced
from dlcore.train.checkpoint import Checkpoints
from dlcore.train.evaluation import Best
from dlcore.train.health import guard
from dlcore.train.logs import RunLog
from dlcore.train.profiling import Profile
from dlcore.train.signals import StopRequest
from dlcore.types import Batch, Step, TrainState

# How many steps the host may be ahead of the device: enough to keep it busy, and few enough that
# their batches take little of its memory and a signal is acted on soon.
_AHEAD = 2

Evaluate = Callable[[TrainState], dict[str, float]]


@dataclasses.dataclass
class Memory:
    """What the loop remembers from step to step; a checkpoint holds it beside the state.

    Attributes:
        window: total and weight of each metric since the last report.
        skipped: how many bad steps came in a row.
        best: the best evaluation yet, if one is followed.
        evaluation: the last evaluation's metrics.
    """

    window: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    skipped: int = 0
    best: Best | None = None
    evaluation: dict[str, float] = dataclasses.field(default_factory=dict)

    def saved(self) -> dict[str, Any]:
        """JSON values that `load` understands."""
        return {
            "window": self.window,
            "skipped": self.skipped,
            "best": self.best and self.best.saved(),
            "evaluation": self.evaluation,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Continues from what `saved` gave."""
        self.window = saved["window"]
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
        spent: `seconds` by what they were spent on, see `accounting.PARTS`.
        flops: of the model in these steps, the first one left out; 0 where they are not counted.
    """

    state: TrainState
    reason: str
    evaluation: dict[str, float]
    steps: int
    seconds: float
    first_step: float | None
    recompilations: int
    spent: dict[str, float]
    flops: float


def fit(
    step: Step,
    state: TrainState,
    batches: Callable[[int], Iterator[Batch]],
    *,
    steps: int,
    layout: Layout | None = None,
    log: RunLog | None = None,
    log_every: int = 100,
    evaluate: Evaluate | None = None,
    eval_every: int = 0,
    split: str = "test",
    checkpoints: Checkpoints | None = None,
    checkpoint_every: int = 0,
    memory: Memory | None = None,
    patience_for_skipped: int = 10,
    count_flops: CountFlops | None = None,
    peak_flops: float | None = None,
    profile: Profile | None = None,
) -> Result:
    """Trains until `steps` steps are done, the patience is used up or a signal comes.

    The step runs under the health guard (`guard`), and steps are dispatched before the metrics of
    those before are read, so that the device never waits for the host. Reports, evaluations and
    checkpoints come in this order after a step, so that a run continued from any checkpoint writes
    what the uninterrupted run would have written.

    Args:
        step: (state, batch) -> (state, metrics), not compiled yet.
        state: where to start, at `state.step`; it is donated.
        batches: the batches from a given number on; batch n is that of step n + 1.
        steps: the number of the last step.
        layout: how to compile the step; one device by default.
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
        count_flops: the FLOPs of the model in a traced step, from its jaxpr; None counts none.
        peak_flops: per second, of all the devices together; None where it is not known.
        profile: which steps to trace.

    Raises:
        Diverged: after that many bad steps in a row; names the steps and the first bad batch.
        InputError: when a log or a checkpoint cannot be written.
    """
    layout = layout or Jit()
    traced = Traced(guard(step), count_flops)
    compiled = compile_step(traced, layout)
    account = Account(traced, layout.part[1], peak_flops)
    memory = memory or Memory()
    start = int(state.step)
    pending: deque[tuple[int, jax.Array, float]] = deque()
    window: np.ndarray | None = None
    reported = start
    first_step: float | None = None
    recompilations = 0

    def report(number: int) -> None:
        nonlocal window, reported, recompilations
        if log is not None and window is not None:
            means = window[:, 0] / np.where(window[:, 1], window[:, 1], np.nan)
            metrics = dict(zip(traced.names, means.tolist(), strict=True))
            log.metrics(number, "train", metrics, speed=account.speed(number - reported))
            if compiled.traces - 1 > recompilations:
                log.say(f"the step was compiled again by step {number}: {account.changes}")
        recompilations = compiled.traces - 1
        window, reported = None, number
        memory.window = {}

    def read(*, keep: int) -> None:
        """Reads the metrics of all dispatched steps but the last `keep`."""
        nonlocal window
        bad = traced.names.index("skipped")
        while len(pending) > keep:
            number, metrics, flops = pending.popleft()
            account.lap("host")
            values = np.asarray(metrics, np.float64)
            account.lap("device")
            account.flops += flops
            if window is None:
                before = [memory.window.get(name, [0.0, 0.0]) for name in traced.names]
                window = np.array(before)
            window += values
            memory.skipped = memory.skipped + 1 if values[bad, 0] else 0
            if memory.skipped >= patience_for_skipped:
                raise Diverged(_diagnosis(number, memory.skipped, batches))
            if number % log_every == 0:
                report(number)

    def save(number: int, best: bool) -> None:
        if checkpoints is not None:
            if window is not None:
                memory.window = dict(zip(traced.names, window.tolist(), strict=True))
            checkpoints.save(number, state, memory.saved(), best=best)

    reason = "finished"
    number = start
    with StopRequest() as stop:
        source = batches(start) if start < steps else iter(())
        while number < steps:
            if profile is not None:
                profile.before(number + 1)
            account.lap("host")
            batch = next(source)
            account.lap("data")
            traces = compiled.traces
            state, metrics = compiled(state, batch)
            number += 1
            if compiled.traces > traces:
                account.compiled(batch)
                account.lap("compilation")
            processes.heartbeat()
            pending.append((number, metrics, account.flops_of(batch)))
            if log is not None:
                log.advance()
            if first_step is None:
                jax.block_until_ready(metrics)
                first_step = time.perf_counter()
                reported, pending[0] = number, (number, metrics, 0.0)
                account.restart()
            read(keep=_AHEAD)
            if profile is not None:
                profile.after(number, metrics)

            improved = False
            if evaluate and (number == steps or (eval_every and number % eval_every == 0)):
                read(keep=0)
                account.lap("host")
                memory.evaluation = evaluate(state)
                account.lap("evaluation")
                if log is not None:
                    log.metrics(number, split, memory.evaluation)
                if memory.best is not None:
                    improved = memory.best.update(number, memory.evaluation)
                    if memory.best.exhausted:
                        reason = "patience"
            signal = stop.at(number)
            if signal and number < steps:
                reason = signal
            last = number == steps or reason != "finished"
            if last or improved or (checkpoint_every and number % checkpoint_every == 0):
                read(keep=0)
                account.lap("host")
                save(number, improved)
                account.lap("checkpoints")
            if last:
                break
    jax.block_until_ready(state)
    account.lap("device")
    seconds = time.perf_counter() - first_step if first_step is not None else 0.0
    if profile is not None:
        profile.close()
    if checkpoints is not None:
        checkpoints.wait()
    return Result(
        state,
        reason,
        memory.evaluation,
        number - start,
        seconds,
        first_step,
        recompilations,
        account.seconds,
        account.flops,
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
        "data, and start again with another --workdir"
    )
