"""The hooks of `fit`, which do everything in a run except its steps, in their usual order.

hooks = [
    Logging(log, every=100),
    Evaluation(evaluate, every=1000, best=Best("accuracy")),
    StopOnSignal(),
    Checkpointing(checkpoints, every=500),
    Accounting(count_flops=model_flops),
]
restored = checkpoints.restore(layout.abstract(make_state))
if restored:
    restore_hooks(hooks, restored.loop)
state = restored.state if restored else layout.initialise(make_state)
result = fit(step, state, batches, steps=10_000, layout=layout, hooks=hooks)
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dlcore.errors import InputError
from dlcore.optim import rate_scale, reduce_on_plateau
from dlcore.runtime import processes
from dlcore.train.evaluation import Best
from dlcore.train.loop import Hook, Loop
from dlcore.train.packed import CountFlops
from dlcore.train.signals import StopOnSignal as StopOnSignal
from dlcore.types import TrainState

if TYPE_CHECKING:  # Orbax and the log's libraries take long to import.
    from dlcore.train.checkpoint import Checkpoints
    from dlcore.train.logs import RunLog
    from dlcore.train.profiling import Profile

Evaluate = Callable[[TrainState], dict[str, float]]


def restore_hooks(hooks: Iterable[Hook], saved: Mapping[str, Any]) -> None:
    """Makes hooks continue from what a checkpoint remembered, its `Restored.loop`."""
    for hook in hooks:
        hook.load(saved)


class Logging(Hook):
    """A hook that reports all evaluations, and the training metrics averaged since the last report.

    Args:
        log: the log to report to.
        every: the number of steps between reports.
        watch: returns the trouble that it sees in the metrics of a report; the log says so when two
            reports in a row have it.
    """

    def __init__(
        self,
        log: "RunLog",
        *,
        every: int = 100,
        watch: Callable[[Mapping[str, float]], str | None] = lambda metrics: None,
    ):
        self._log, self._every, self._watch = log, every, watch
        self._troubled = 0  # reports one after the other
        self._window: np.ndarray | None = None
        self._before: dict[str, list[float]] = {}  # the window that a checkpoint remembered
        self._recompilations = 0

    def read(self, loop: Loop, number: int, values: np.ndarray) -> None:
        if self._window is None:
            self._window = np.array([self._before.get(name, [0.0, 0.0]) for name in loop.names])
        self._window += values
        if number % self._every == 0:
            self._report(loop, number, self._window)
            self._window, self._before = None, {}

    def _report(self, loop: Loop, number: int, window: np.ndarray) -> None:
        means = window[:, 0] / np.where(window[:, 1], window[:, 1], np.nan)
        metrics = dict(zip(loop.names, means.tolist(), strict=True))
        self._log.metrics(number, "train", metrics, speed=loop.account.speed())
        trouble = self._watch(metrics)
        self._troubled = self._troubled + 1 if trouble else 0
        if self._troubled == 2:
            self._log.say(f"step {number}: {trouble}")
        if loop.recompilations > self._recompilations:
            self._recompilations = loop.recompilations
            changes = loop.account.changes
            self._log.say(f"the step was compiled again by step {number}: {changes}")

    def after_step(self, loop: Loop) -> None:
        self._log.advance()

    def report(self, loop: Loop, split: str, metrics: Mapping[str, float]) -> None:
        self._log.metrics(loop.number, split, metrics)

    def saved(self, loop: Loop) -> dict[str, Any]:
        window = self._before
        if self._window is not None:
            window = dict(zip(loop.names, self._window.tolist(), strict=True))
        return {"window": window, **self._log.saved()}

    def load(self, saved: Mapping[str, Any]) -> None:
        self._before = dict(saved.get("window", {}))
        self._log.check(saved)


class Evaluation(Hook):
    """A hook that evaluates the state on held-out data, always after the last step too.

    Args:
        evaluate: returns the metrics of a state.
        every: the number of steps between evaluations; 0 evaluates only after the last step.
        split: the name of the held-out data in the reports.
        best: decides which evaluation is the best and when to stop; with None nothing does.
    """

    def __init__(
        self, evaluate: Evaluate, *, every: int = 0, split: str = "test", best: Best | None = None
    ):
        self._evaluate, self._every, self._split = evaluate, every, split
        self.best = best
        self._last: dict[str, float] = {}

    def start(self, loop: Loop) -> None:
        loop.evaluation = self._last

    def after_step(self, loop: Loop) -> None:
        if loop.number != loop.steps and not (self._every and loop.number % self._every == 0):
            return
        loop.read()
        with loop.account.spending("evaluation"):
            self._last = self._evaluate(loop.state)
        loop.evaluation = self._last
        loop.report(self._split, self._last)
        if self.best is not None:
            if self.best.update(loop.number, self._last):
                loop.best = loop.number
            if self.best.exhausted:
                loop.stop("patience")

    def saved(self, loop: Loop) -> dict[str, Any]:
        return {"best": self.best and self.best.saved(), "evaluation": self._last}

    def load(self, saved: Mapping[str, Any]) -> None:
        self._last = dict(saved.get("evaluation", {}))
        if self.best is not None and saved.get("best") is not None:
            self.best.load(saved["best"])


class ReduceOnPlateau(Hook):
    """A hook that makes the learning rate smaller when the loss of evaluations no longer falls.

    The optimizer's state holds what it must remember; see `optim.reduce_on_plateau`. The evaluation
    after the last step counts only if a longer run would have made it too.

    Args:
        patience: the number of evaluations in a row without a lower loss that make the rate
            smaller.
        factor: the number by which the rate is multiplied.
        every: the number of steps between the evaluations.
        split: the split whose evaluations count.
        say: takes one line that tells what happened.
    """

    def __init__(
        self, patience: int, *, factor: float, every: int, split: str, say: Callable[[str], None]
    ):
        self._patience, self._factor, self._every = patience, factor, every
        self._split, self._say = split, say

    def report(self, loop: Loop, split: str, metrics: Mapping[str, float]) -> None:
        if split != self._split or loop.number % self._every:
            return
        if "loss" not in metrics:
            raise InputError(
                "the learning rate follows the metric 'loss', but this evaluation reports "
                f"{sorted(metrics)}; leave out --plateau_patience"
            )
        opt_state, reduced = reduce_on_plateau(
            loop.state.opt_state, metrics["loss"], patience=self._patience, factor=self._factor
        )
        loop.state = loop.state.replace(opt_state=opt_state)
        if reduced:
            self._say(
                f"step {loop.number}: no lower {split} loss in {self._patience} evaluations; the "
                f"learning rate is multiplied by {self._factor:g}, which makes it "
                f"{rate_scale(opt_state):.3g} of that of the schedule"
            )


class Checkpointing(Hook):
    """A hook that saves each new best evaluation, and the last step unless an error ends the run.

    With the state it saves what all hooks must remember, so it stands after those hooks. While bad
    steps are being skipped it saves no checkpoints by `every`, so that no older checkpoint is
    dropped for copies of a state that does not change.

    Args:
        checkpoints: the checkpoints to save to.
        every: the number of steps between further checkpoints; 0 for none.
    """

    def __init__(self, checkpoints: "Checkpoints", *, every: int = 0):
        self._checkpoints, self._every = checkpoints, every
        self._skipped = 0
        self._last: int | None = None

    def start(self, loop: Loop) -> None:
        """Takes over what the checkpoint remembered.

        Raises:
            ValueError: when a hook with something to remember comes later, because a checkpoint
                would then lack what that hook does after the same step; or when two hooks save the
                same key.
        """
        loop.skipped, self._last = self._skipped, None
        behind = [
            type(hook).__name__
            for hook in loop.hooks[loop.hooks.index(self) + 1 :]
            if type(hook).saved is not Hook.saved
        ]
        if behind:
            raise ValueError(
                f"Checkpointing comes before {', '.join(behind)}, whose memory it saves; put it "
                "after them"
            )
        self._memory(loop)

    def after_step(self, loop: Loop) -> None:
        best = loop.best == loop.number
        if best or (self._every and loop.number % self._every == 0):
            loop.read()
            if best or not loop.skipped:
                self._save(loop)

    def finish(self, loop: Loop) -> None:
        if loop.taken:
            self._save(loop)

    def close(self, loop: Loop) -> None:
        if not loop.failed:
            self._checkpoints.wait()

    def saved(self, loop: Loop) -> dict[str, Any]:
        return {"skipped": loop.skipped}

    def load(self, saved: Mapping[str, Any]) -> None:
        self._skipped = saved.get("skipped", 0)

    def _save(self, loop: Loop) -> None:
        if self._last == loop.number:
            return
        with loop.account.spending("checkpoints"):
            best = loop.best == loop.number
            self._checkpoints.save(loop.number, loop.state, self._memory(loop), best=best)
        self._last = loop.number

    def _memory(self, loop: Loop) -> dict[str, Any]:
        memory: dict[str, Any] = {}
        for hook in loop.hooks:
            saved = hook.saved(loop)
            if twice := sorted(memory.keys() & saved.keys()):
                raise ValueError(f"two hooks save {', '.join(twice)}; give one of them")
            memory |= saved
        return {"window": {}, "best": None, "evaluation": {}} | memory


class Accounting(Hook):
    """A hook that counts the FLOPs of the model, for the result and the figures of the log.

    Every result has the seconds by what they were spent on, with or without this hook.

    Args:
        count_flops: counts the FLOPs of the model in a traced step, from its jaxpr; None counts
            none.
        peak_flops: the peak FLOPs per second of all devices together; None where it is not known.
    """

    def __init__(self, count_flops: CountFlops | None = None, peak_flops: float | None = None):
        self._count_flops, self._peak_flops = count_flops, peak_flops

    def start(self, loop: Loop) -> None:
        loop.packed.count_flops = self._count_flops
        loop.account.peak_flops = self._peak_flops


class Profiling(Hook):
    """A hook that traces some steps, for TensorBoard or Perfetto.

    Args:
        profile: the steps to trace, and where to write the trace.
    """

    def __init__(self, profile: "Profile"):
        self._profile = profile

    def before_step(self, loop: Loop) -> None:
        self._profile.before(loop.number + 1)

    def after_step(self, loop: Loop) -> None:
        self._profile.after(loop.number, loop.state)

    def close(self, loop: Loop) -> None:
        self._profile.close()


class Watchdog(Hook):
    """A hook that ends the process, and prints the tracebacks of its threads, when a step hangs.

    Steps and batches of evaluations count as signs of life.

    Args:
        seconds: how long the process may show no sign of life; 0 never ends it.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds

    def start(self, loop: Loop) -> None:
        processes.set_watchdog(self._seconds)

    def after_step(self, loop: Loop) -> None:
        processes.heartbeat()

    def close(self, loop: Loop) -> None:
        processes.set_watchdog(0)
