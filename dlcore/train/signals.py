"""SIGTERM and Ctrl-C as a request to save and leave."""

import signal
import types
from typing import Self

from jax.experimental import multihost_utils

from dlcore.runtime import processes


class StopRequest:
    """While open, the first SIGTERM or SIGINT is remembered instead of acted on; a second acts.

    In several processes JAX watches for SIGTERM, so that all of them stop after the same step, and
    Ctrl-C ends them as ever.
    """

    _name: str | None = None

    def at(self, step: int) -> str | None:
        """The signal that asks to stop after this step, such as "SIGTERM", or None.

        Each process must ask at each step.
        """
        if processes.is_distributed():
            return "SIGTERM" if multihost_utils.reached_preemption_sync_point(step) else None
        return self._name

    def _receive(self, number: int, frame: types.FrameType | None) -> None:
        self._name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __enter__(self) -> Self:
        numbers = () if processes.is_distributed() else (signal.SIGTERM, signal.SIGINT)
        try:
            self._before = {number: signal.signal(number, self._receive) for number in numbers}
        except ValueError:  # not the main thread: signals are somebody else's there
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
