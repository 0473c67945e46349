"""An account of what the steps of a run compute and of the time they take.

FLOPs are floating-point operations of the model: those that a step needs on all its devices
together, not counting what it computes again to save memory. Their share of the devices' peak is
the model FLOP utilisation (Chowdhery et al. 2022, appendix B).
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from dlcore.paths import leaves_by_path
from dlcore.train.packed import PackedStep, numbers_in
from dlcore.types import Batch

# What the host does: it waits for a batch, for the devices, for an evaluation or for a checkpoint,
# compiles, or does all the rest, which dispatches steps. On the CPU a small step runs within the
# call that dispatches it.
PARTS = ("data", "device", "evaluation", "checkpoints", "compilation", "host")


class Account:
    """The bookkeeping of a loop.

    Args:
        packed: the step that the loop runs.
        parts: the number of parts into which the processes divide a batch.

    Attributes:
        seconds: the time since `restart`, by part (`PARTS`).
        steps: the number of steps that `done` has counted.
        flops: the FLOPs of these steps.
        peak_flops: the peak FLOPs per second of all devices of the step together; None where it is
            not known.
        changes: what was new in the batch for which the step was last compiled.
    """

    def __init__(self, packed: PackedStep, parts: int = 1):
        self._packed = packed
        self._parts = parts
        self.peak_flops: float | None = None
        self._flops_of: dict[Any, float] = {}
        self._only = 0.0
        self._kinds: dict[str, str] = {}
        self.changes = ""
        self.restart()

    def restart(self) -> None:
        """Forgets everything except what batches cost."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.steps, self.flops = 0, 0.0
        self._before = dict(self.seconds), 0, 0.0
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """Adds the time since the last lap to a part; each moment counts for exactly one part."""
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now

    @contextlib.contextmanager
    def spending(self, part: str) -> Iterator[None]:
        """Adds the time while the context is open to a part, and the time before it to the host."""
        self.lap("host")
        yield
        self.lap(part)

    def done(self, flops: float) -> None:
        """Counts one step and its FLOPs."""
        self.steps += 1
        self.flops += flops

    def compiled(self, batch: Batch) -> None:
        """Records the cost of a batch for which the step was just compiled, and what is new."""
        whole, seen = numbers_in(batch) * self._parts, self._packed.numbers
        self._only = self._packed.flops * whole / max(seen, 1)
        self._flops_of[self._key(batch)] = self._only
        kinds = {
            path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves_by_path(batch).items()
        }
        new = [
            f"{path} {self._kinds.get(path, 'nothing')} -> {kind}"
            for path, kind in kinds.items()
            if self._kinds.get(path) != kind
        ]
        self.changes = ", ".join(new) or "no shape of the batch, so something in the state"
        self._kinds = kinds

    def flops_of(self, batch: Batch) -> float:
        """Returns the FLOPs of the step on a batch of a shape that was `compiled`."""
        if len(self._flops_of) == 1:  # The shapes take longer to read.
            return self._only
        return self._flops_of[self._key(batch)]

    @staticmethod
    def _key(batch: Batch) -> Any:
        return tuple([leaf.shape for leaf in jax.tree.leaves(batch)])

    def speed(self) -> dict[str, float]:
        """Returns the figures of the steps done since the last call or the restart, for a log."""
        seconds, steps, flops = self._before
        self._before = dict(self.seconds), self.steps, self.flops
        spent = {part: self.seconds[part] - seconds[part] for part in PARTS}
        return figures(self.steps - steps, spent, self.flops - flops, self.peak_flops)


def figures(
    steps: int, seconds: Mapping[str, float], flops: float, peak_flops: float | None
) -> dict[str, float]:
    """Returns the figures to report of some steps: speeds, and the seconds of a step by part.

    Args:
        steps: the number of steps.
        seconds: the time that they took, by part.
        flops: the FLOPs of all of them together; 0 where they are not counted.
        peak_flops: the peak FLOPs per second of all devices together; None where it is not known.
    """
    total = sum(seconds.values())
    if steps == 0 or total == 0:
        return {}
    found = {"steps_per_second": steps / total}
    if flops:
        found["model_flops_per_second"] = flops / total
        if peak_flops is not None:
            found["model_flop_utilisation"] = flops / total / peak_flops
    return found | {f"seconds_per_step/{part}": value / steps for part, value in seconds.items()}
