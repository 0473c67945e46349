"""SIGTERM and Ctrl-C as a request to save and leave."""

import signal
import types
from typing import Self


class StopRequest:
    """While open, the first SIGTERM or SIGINT is remembered instead of acted on; a second acts.

    Attributes:
        name: the signal that came, such as "SIGTERM", or None.
    """

    name: str | None = None

    def _receive(self, number: int, frame: types.FrameType | None) -> None:
        self.name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __enter__(self) -> Self:
        numbers = (signal.SIGTERM, signal.SIGINT)
        try:
            self._before = {number: signal.signal(number, self._receive) for number in numbers}
        except ValueError:  # not the main thread: signals are somebody else's there
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
