"""The training loop. It only calls the step, which decides what is trained and how."""

import contextlib
import dataclasses
import inspect
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dlcore.errors import Diverged, InputError
from dlcore.paths import leaves_by_path
from dlcore.runtime import Layout, Precision, compile_step
from dlcore.runtime.layout import Jit
from dlcore.train.accounting import Account
from dlcore.train.health import guard
from dlcore.train.packed import PackedStep
from dlcore.types import Batch, Step, TrainState

# How many steps the host may be ahead of the device: enough to keep it busy, and few enough that
# their batches take little of its memory and a signal is acted on soon.
_AHEAD = 2
# So many bad steps in a row end a run.
_PATIENCE = 10

Batches = Callable[[int], Iterator[Batch]]


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a run; its representation leaves out the state.

    Attributes:
        state: the state after the last step.
        reason: "finished", "patience", or the signal that ended the run.
        evaluation: the metrics of the last evaluation.
        steps: the number of steps that this call took.
        seconds: how long they took, not counting the first one.
        first_step: when the first step was done, by `time.perf_counter`; None without a step.
        recompilations: how often the step was compiled again.
        spent: `seconds` by what they were spent on, see `accounting.PARTS`.
        flops: the FLOPs of the model in these steps, not counting the first one; 0 where they are
            not counted at all.
    """

    state: TrainState = dataclasses.field(repr=False)
    reason: str
    evaluation: dict[str, float]
    steps: int
    seconds: float
    first_step: float | None
    recompilations: int
    spent: dict[str, float]
    flops: float


class Hook:
    """An action beside the steps of a run; `fit` calls only the methods that a subclass overrides.

    A hook returns what it must remember for a run that continues by `saved`, and takes it back by
    `load`. All hooks share one dict, so each must use keys of its own.
    """

    def start(self, loop: "Loop") -> None:
        """Is called before the first step."""

    def before_step(self, loop: "Loop") -> None:
        """Is called before a batch is taken; `loop.number` steps were dispatched so far."""

    def after_step(self, loop: "Loop") -> None:
        """Is called when step `loop.number` is dispatched; it may still be computed."""

    def read(self, loop: "Loop", number: int, values: np.ndarray) -> None:
        """Is called when the metrics of a step are known, at most two steps later.

        Args:
            loop: the loop, whose `names` are the names of the metrics.
            number: the number of the step.
            values: float64 (metrics, 2), their totals and weights.
        """

    def report(self, loop: "Loop", split: str, metrics: Mapping[str, float]) -> None:
        """Is called with the metrics of an evaluation after step `loop.number`."""

    def finish(self, loop: "Loop") -> None:
        """Is called after the last step of a run that no error ended."""

    def close(self, loop: "Loop") -> None:
        """Is called at the very end, after an error too; the time no longer counts."""

    def saved(self, loop: "Loop") -> dict[str, Any]:
        """Returns the JSON values, by keys of its own, that `load` understands."""
        return {}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Continues from what `saved` returned in the run before."""


class Loop:
    """A run as hooks see it and act on it.

    Attributes:
        state: the state after `number` steps.
        number: the number of the last step that was dispatched.
        steps: the number of the last step of the run.
        reason: why the run ends after this step, or None.
        skipped: how many bad steps came in a row.
        evaluation: the metrics of the last evaluation.
        best: the step of the best evaluation yet, where a hook follows it.
        packed: the step, with its metrics in one array.
        account: the account of FLOPs and time.
        hooks: all hooks of the run.
        failed: whether an error ends the run.
    """

    def __init__(
        self,
        step: Step,
        state: TrainState,
        batches: Batches,
        *,
        steps: int,
        layout: Layout,
        precision: Precision | None,
        hooks: Sequence[Hook],
    ):
        self.state, self.steps, self.hooks = layout.place(state), steps, tuple(hooks)
        self.number = self._start = int(state.step)
        self.reason: str | None = None
        self.skipped = 0
        self.evaluation: dict[str, float] = {}
        self.best: int | None = None
        self.failed = False
        self.packed = PackedStep(guard(step))
        self.account = Account(self.packed, layout.part[1])
        self._batches = batches
        self._compiled = compile_step(self.packed, layout, precision=precision)
        self._first_step: float | None = None
        # Of each step that was dispatched and not read yet: its number, its metrics, and its FLOPs,
        # None for the first one, which does not count.
        self._pending: deque[tuple[int, jax.Array, float | None]] = deque()
        self._bad = 0  # which of the metrics tells bad steps
        self._readers = self._overriding("read")

    @property
    def names(self) -> list[str]:
        """The names of the metrics, in the order of their values."""
        return self.packed.names

    @property
    def taken(self) -> int:
        """The count of the steps taken so far."""
        return self.number - self._start

    @property
    def recompilations(self) -> int:
        """The count of the times that the step was compiled again."""
        return max(self._compiled.traces - 1, 0)

    def stop(self, reason: str) -> None:
        """Ends the run after this step."""
        self.reason = reason

    def read(self, *, keep: int = 0) -> None:
        """Reads the metrics of all dispatched steps except the last `keep`.

        Raises:
            Diverged: after too many bad steps in a row.
        """
        while len(self._pending) > keep:
            number, metrics, flops = self._pending.popleft()
            self.account.lap("host")
            values = np.asarray(metrics, np.float64)
            self.account.lap("device")
            if flops is not None:
                self.account.done(flops)
            self.skipped = self.skipped + 1 if values[self._bad, 0] else 0
            if self.skipped >= _PATIENCE:
                raise Diverged(_diagnosis(number, self.skipped, self._batches))
            for read in self._readers:
                read(self, number, values)

    def report(self, split: str, metrics: Mapping[str, float]) -> None:
        """Passes the metrics of an evaluation to all hooks."""
        for hook in self.hooks:
            hook.report(self, split, metrics)

    def run(self) -> Result:
        """Trains until the last step or until a hook ends the run."""
        try:
            for hook in self.hooks:
                hook.start(self)
            self._train()
            for hook in self.hooks:
                hook.finish(self)
            jax.block_until_ready(self.state)
            self.account.lap("device")
            first = self._first_step
            result = Result(
                state=self.state,
                reason=self.reason or "finished",
                evaluation=self.evaluation,
                steps=self.taken,
                seconds=time.perf_counter() - first if first is not None else 0.0,
                first_step=first,
                recompilations=self.recompilations,
                spent=self.account.seconds,
                flops=self.account.flops,
            )
        except BaseException:
            self.failed = True
            raise
        finally:
            with contextlib.ExitStack() as stack:
                for hook in self.hooks[::-1]:
                    stack.callback(hook.close, self)
        return result

    def _train(self) -> None:
        before, after = self._overriding("before_step"), self._overriding("after_step")
        account, compiled, pending = self.account, self._compiled, self._pending
        source = _source(self._batches, self.number) if self.number < self.steps else iter(())
        while self.number < self.steps and self.reason is None:
            for hook in before:
                hook(self)
            account.lap("host")
            batch = next(source, None)
            account.lap("data")
            if not isinstance(batch, Mapping):
                raise self._no_batch(batch)
            traces = compiled.traces
            try:
                self.state, metrics = compiled(self.state, batch)
            except KeyError as error:
                raise _without(batch, error) from error
            self.number += 1
            if compiled.traces > traces:
                account.compiled(batch)
                self._bad = self.names.index("skipped")
                account.lap("compilation")
            if self._first_step is None:
                jax.block_until_ready(metrics)
                self._first_step = time.perf_counter()
                account.restart()
                pending.append((self.number, metrics, None))
            else:
                pending.append((self.number, metrics, account.flops_of(batch)))
                self.read(keep=_AHEAD)
            for hook in after:
                hook(self)
        self.read()

    def _no_batch(self, found: Any) -> InputError:
        """Returns the error for something that came in place of the next step's batch."""
        if found is not None:
            return InputError(
                f"batch {self.number} is {_kind(found)}; a batch is a dict of arrays by name, such "
                'as {"image": ..., "label": ..., "weight": ...}'
            )
        return InputError(
            f"the batches end before number {self.number}, but training goes on to step "
            f"{self.steps}; give batches that begin again when the data is used up, as those of "
            f"dlcore.data.Loader do, or train for steps={self.number}"
        )

    def _overriding(self, name: str) -> list[Callable[..., None]]:
        """Returns a method of the hooks that override it: calling an empty one costs time too."""
        return [
            getattr(hook, name)
            for hook in self.hooks
            if getattr(type(hook), name) is not getattr(Hook, name)
        ]


def fit(
    step: Step,
    state: TrainState,
    batches: Batches,
    *,
    steps: int,
    layout: Layout | None = None,
    precision: Precision | None = None,
    hooks: Sequence[Hook] = (),
) -> Result:
    """Trains until `steps` steps are done or a hook ends the run.

    The step runs under the health guard (`guard`). Each step is dispatched before the metrics of
    earlier steps are read, so that the device never waits for the host. Hooks do everything else,
    in the order given; without any the run is silent. A hook looks at the state after a step only
    when the metrics of all steps up to it were read and reported: reports, evaluations and
    checkpoints come in this order, so that a run continued from any checkpoint writes what the
    uninterrupted run would have written.

    Args:
        step: (state, batch) -> (state, metrics), not compiled yet.
        state: the state to start from, at `state.step`; it is donated. `layout.place` moves the
            parts that do not lie where the layout wants them; where the state is too large for one
            device, `layout.initialise` makes it in place, part by part.
        batches: returns the batches from a given number on, without end; step n + 1 takes batch n.
        steps: the number of the last step.
        layout: how to compile the step; one device by default.
        precision: the precision to compute in; float32 by default.
        hooks: hooks of `dlcore.train.hooks`, or custom ones.

    Raises:
        Diverged: after 10 bad steps in a row; names the steps and the first bad batch.
        InputError: when the state was donated to an earlier step; when `batches` returns no
            batches, they end, or the step looks for something that they lack; when the layout
            refuses the step or a batch (`compile_step`), or a hook cannot write.
    """
    _refuse_used(state)
    loop = Loop(
        step,
        state,
        batches,
        steps=steps,
        layout=layout or Jit(),
        precision=precision,
        hooks=hooks,
    )
    return loop.run()


def _refuse_used(state: TrainState) -> None:
    """Raises InputError for a state whose arrays were donated to a step before."""
    leaves = leaves_by_path(state)
    used = [
        path for path, leaf in leaves.items() if isinstance(leaf, jax.Array) and leaf.is_deleted()
    ]
    if used:
        raise InputError(
            f"{len(used)} of the {len(leaves)} arrays of the state, such as {used[-1]}, were taken "
            "over by the first step of an earlier `fit`; make a new state for each run, its "
            "parameters too, or go on with the state that `fit` returned"
        )


def _source(batches: Batches, start: int) -> Iterator[Batch]:
    """Returns the batches from number `start` on.

    Raises:
        InputError: when `batches` is not a function that returns them.
    """
    wanted = "batches must be a function of the number of the first batch that gives an iterator"
    if not callable(batches):
        has = getattr(batches, "batches", None)
        remedy = "give its method `batches`" if callable(has) else "give a generator function"
        raise InputError(f"{wanted}, so that a run can continue, not {_kind(batches)}; {remedy}")
    try:
        inspect.signature(batches).bind(start)
    except TypeError as error:
        raise InputError(f"{wanted}; {_kind(batches)} cannot be called so: {error}") from None
    except ValueError:  # it has no signature that Python knows
        pass
    found: Any = batches(start)
    try:
        return iter(found)
    except TypeError:
        raise InputError(f"{wanted}; this one returns {_kind(found)}") from None


def _kind(value: Any) -> str:
    """Returns the name of a value's type, with its article."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _without(batch: Batch, error: KeyError) -> Exception:
    """Returns the error for a name that the step does not find, when the batch lacks it."""
    name = error.args[0] if error.args else None
    if not isinstance(name, str) or name in batch:
        return error
    remedy = "add it to the batches"
    if name == "weight":
        remedy += ": one float32 for each row, 1 where it counts and 0 where it is padding"
    return InputError(
        f"the step looks for {name!r}, and the batch holds {', '.join(batch)}; {remedy}"
    )


def _diagnosis(last: int, count: int, batches: Batches) -> str:
    """Returns the error after `count` bad steps in a row, with what the first bad batch holds."""
    first = last - count + 1
    batch = next(batches(first - 1))
    fields = []
    for name, leaf in batch.items():
        bad = int(np.size(leaf) - np.isfinite(leaf).sum())
        fields.append(f"{name} {bad} values not finite" if bad else f"{name} finite")
    return (
        f"the loss, its gradient or the new parameters were not finite in {count} steps in a row, "
        f"{first} to {last}; "
        f"the parameters are still those of step {first - 1}; the first bad batch is number "
        f"{first - 1} ({', '.join(fields)}); lower the learning rate, clip the gradient's norm "
        "(--clip_norm), or mend the data, and start again in another folder"
    )
