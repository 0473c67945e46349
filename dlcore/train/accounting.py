"""What the steps of a run compute, and where their time goes.

FLOPs are floating-point operations of the model: those that a step needs on all its devices
together, without what is computed again to save memory. Their share of the devices' peak is the
model FLOP utilisation (Chowdhery et al. 2022, appendix B).
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dlcore.paths import leaves_by_path
from dlcore.types import Batch, Step, TrainState

# What the host does: it waits for a batch, for the devices, for an evaluation or for a checkpoint,
# compiles, or does all the rest, which dispatches steps. On the CPU a small step runs within the
# call that dispatches it.
PARTS = ("data", "device", "evaluation", "checkpoints", "compilation", "host")
CountFlops = Callable[[Any], float]


class Traced:
    """A step whose metrics are one array (metrics, 2) of totals and weights.

    Each array that a compiled step returns costs the host microseconds to make and to read, which
    counts where a step takes half a millisecond.

    Attributes:
        names: of the metrics, known once the step was traced.
        flops: of the program that was traced last, on one device's part where it sees only that.
        numbers: in the batch that this program saw.
    """

    def __init__(self, step: Step, count_flops: CountFlops | None = None):
        self._step = step
        self._count_flops = count_flops
        self.names: list[str] = []
        self.flops = 0.0
        self.numbers = 0

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, jax.Array]:
        # To trace takes seconds for a large model. This way once is enough, and the program is the
        # same as without.
        step = jax.jit(self._step, inline=True)
        if self._count_flops is not None:
            self.flops = self._count_flops(step.trace(state, batch).jaxpr)
            self.numbers = numbers_in(batch)
        state, metrics = step(state, batch)
        self.names = sorted(metrics)
        means = [metrics[name] for name in self.names]
        return state, jnp.stack([jnp.stack([mean.total, mean.weight]) for mean in means])


def numbers_in(batch: Batch) -> int:
    """How many numbers a batch holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(batch))


class Account:
    """The bookkeeping of a loop.

    Args:
        traced: the step.
        parts: into how many parts the processes divide a batch.
        peak_flops: per second, of all devices of the step together; None where it is not known.

    Attributes:
        seconds: what passed since `restart`, by the part of `PARTS` that it belongs to.
        flops: of the steps that are `done`.
    """

    def __init__(self, traced: Traced, parts: int = 1, peak_flops: float | None = None):
        self._traced = traced
        self._parts = parts
        self._peak_flops = peak_flops
        self._flops_of: dict[Any, float] = {}
        self._only = 0.0
        self._kinds: dict[str, str] = {}
        self.changes = ""
        self.restart()

    def restart(self) -> None:
        """Forgets all but what batches cost."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.flops = 0.0
        self._before, self._flops_before = dict(self.seconds), 0.0
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """What passed since the last lap belongs to a part: each moment belongs to one."""
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now

    def compiled(self, batch: Batch) -> None:
        """Notes what a batch costs for which the step has just been compiled, and what is new."""
        whole, seen = numbers_in(batch) * self._parts, self._traced.numbers
        self._only = self._traced.flops * whole / max(seen, 1)
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
        """The FLOPs of the step on a batch of a shape that was `compiled`."""
        if len(self._flops_of) == 1:  # The shapes take longer to read.
            return self._only
        return self._flops_of[self._key(batch)]

    @staticmethod
    def _key(batch: Batch) -> Any:
        return tuple([leaf.shape for leaf in jax.tree.leaves(batch)])

    def speed(self, steps: int) -> dict[str, float]:
        """The figures of the steps since the last call or the restart, for a log.

        Args:
            steps: how many they were; of none there are no figures.
        """
        spent = {part: self.seconds[part] - self._before.get(part, 0.0) for part in PARTS}
        flops = self.flops - self._flops_before
        self._before, self._flops_before = dict(self.seconds), self.flops
        return figures(steps, spent, flops, self._peak_flops)


def figures(
    steps: int, seconds: Mapping[str, float], flops: float, peak_flops: float | None
) -> dict[str, float]:
    """What to report of some steps: speeds, and the seconds of a step by part.

    Args:
        steps: how many.
        seconds: that they took, by part.
        flops: of all of them together; 0 where they are not counted.
        peak_flops: per second, of all devices together; None where it is not known.
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
