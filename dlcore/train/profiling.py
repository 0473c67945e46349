"""Traces that show what host and devices do in some steps, for TensorBoard or Perfetto."""

import pathlib
from typing import Any

import jax

from dlcore.errors import InputError
from dlcore.train.logs import writing


class Profile:
    """A tracer of the steps from `first` to `last`.

    Args:
        folder: the folder to write to.
        first: the number of the first traced step; the first step of a run also compiles.
        last: the number of the last traced step.
    """

    def __init__(self, folder: pathlib.Path, first: int, last: int):
        self._folder, self._first, self._last = folder, first, last
        self._open = False

    def before(self, step: int) -> None:
        """Starts the trace if it is time, at once in a run that starts among the traced steps."""
        if not self._open and self._first <= step <= self._last:
            with writing(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(str(self._folder))
            self._open = True

    def after(self, step: int, result: Any) -> None:
        """Ends the trace if it is time, once the result of the step is there."""
        if self._open and step >= self._last:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Writes what was traced so far, if a trace has not ended."""
        if self._open:
            self._open = False
            with writing(self._folder):
                jax.profiler.stop_trace()


def parse_steps(text: str, steps: int) -> tuple[int, int]:
    """Returns the first and the last step of a flag FROM:TO.

    >>> parse_steps("20:25", 100)
    (20, 25)

    Raises:
        InputError: when the text is not of that form, or the steps are not among 1 to `steps`.
    """
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal()):
        raise InputError(f"steps to profile {text!r} are not FROM:TO; write 20:25")
    if not 1 <= int(first) <= int(last) <= steps:
        raise InputError(f"steps to profile {text!r} are not among the steps 1 to {steps}")
    return int(first), int(last)
