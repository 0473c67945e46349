"""SIGTERM and Ctrl-C as requests to save and end the run."""

import signal
import types

from jax.experimental import multihost_utils

from dlcore.runtime import processes
from dlcore.train.loop import Hook, Loop


class StopOnSignal(Hook):
    """A hook that ends the run after the current step on SIGTERM or Ctrl-C.

    A second signal acts as usual. In a run of several processes JAX watches for SIGTERM, so that
    all of them stop after the same step, and Ctrl-C acts as usual. In a thread other than the main
    one both signals act as usual.
    """

    def __init__(self) -> None:
        self._name: str | None = None
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def start(self, loop: Loop) -> None:
        self._name = None
        numbers = () if processes.is_distributed() else (signal.SIGTERM, signal.SIGINT)
        try:
            self._before = {number: signal.signal(number, self._receive) for number in numbers}
        except ValueError:  # not the main thread: signals are somebody else's there
            self._before = {}

    def after_step(self, loop: Loop) -> None:
        name = self._name
        if processes.is_distributed():  # Each process must ask at each step.
            reached = multihost_utils.reached_preemption_sync_point(loop.number)
            name = "SIGTERM" if reached else None
        if name is not None and loop.number < loop.steps:
            loop.stop(name)

    def close(self, loop: Loop) -> None:
        self._restore()

    def _receive(self, number: int, frame: types.FrameType | None) -> None:
        self._name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
