"""The progress display of a training: one line in place on a terminal, else plain lines."""

import datetime
import os
import time
from collections.abc import Mapping
from typing import TextIO

from dlcore.runtime.output import unfailing

_EVERY = 0.5  # seconds between drawings


class Progress:
    """A display that shows a person how a run is going.

    On a terminal it redraws one line with the figures, the most important ones first, because the
    terminal cuts the line at its right edge. Without a terminal each report of the training is a
    line. Evaluations are lines that stay, in both cases.

    Args:
        stream: the stream to write to.
        start: the step at which the run starts.
        steps: the last step; None where it is not known.
        shown: the metrics to show, the main metric of the run first.
        quiet: whether to show nothing except the lines of `say`.
    """

    def __init__(
        self,
        stream: TextIO | None,
        *,
        start: int = 0,
        steps: int | None = None,
        shown: tuple[str, ...] = ("loss",),
        quiet: bool = False,
    ):
        self._out = unfailing(stream)
        self._step, self._steps, self._shown, self._quiet = start, steps, shown, quiet
        self._terminal = not quiet and self._out.isatty()
        self._figures: dict[tuple[str, str], str] = {}  # by part of the data and name
        self._rate: float | None = None  # steps per second
        self._speed: list[str] = []
        self._first: tuple[int, float] | None = None  # the first step here, and when it was done
        self._drawn, self._width = -_EVERY, 0

    def advance(self) -> None:
        """Counts one step more."""
        self._step += 1
        if not self._terminal:
            return
        now = time.perf_counter()
        if now - self._drawn >= _EVERY:
            self._drawn = now
            self._first = self._first or (self._step, now)
            self._draw(now)

    def report(
        self, step: int, split: str, metrics: Mapping[str, float], speed: Mapping[str, float]
    ) -> None:
        """Takes in the metrics of a split after a step, and the figures of the speed."""
        if self._quiet:
            return
        known = [name for name in dict.fromkeys(self._shown) if name in metrics]
        for name in known:
            self._figures[split, name] = f"{split} {name} {metrics[name]:.4g}"
        self._rate = speed.get("steps_per_second", self._rate)
        self._speed = speed_figures(speed) or self._speed
        here = [self._figures[split, name] for name in known]
        if split != "train":
            self.say(f"step {step}: {', '.join(here)}")
        elif not self._terminal:
            rest = [*self._left(step, self._rate), *self._speed]
            self.say(", ".join([self._count(step), *here, *rest]))

    def say(self, line: str) -> None:
        """Writes a line that stays."""
        if self._terminal:
            line = f"\r{line.ljust(self._width)}"
            self._width = 0
        self._out.write(line + "\n")
        self._out.flush()

    def close(self) -> None:
        """Ends the line that stays in place."""
        if self._terminal:
            self._draw(time.perf_counter())
            self._out.write("\n")
            self._out.flush()
            self._terminal = False

    def line(self, rate: float | None = None) -> str:
        """Returns the figures in one line, the most important ones first."""
        figures = dict(self._figures)
        wanted = [key for key in figures if key[0] != "train" and key[1] == self._shown[0]]
        wanted += [key for key in figures if key == ("train", self._shown[-1])]
        first = [figures.pop(key) for key in wanted]
        rest = [*self._left(self._step, rate or self._rate), *figures.values(), *self._speed]
        return ", ".join([*first, self._count(self._step, ""), *rest])

    def _draw(self, now: float) -> None:
        rate = self._rate
        if rate is None and self._first is not None and now > self._first[1]:
            rate = (self._step - self._first[0]) / (now - self._first[1])
        line = self.line(rate)[: self._columns() - 1]  # the last one would begin a new line
        self._out.write(f"\r{line.ljust(self._width)}")
        self._out.flush()
        self._width = len(line)

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._out.fileno()).columns or 80
        except (OSError, ValueError, AttributeError):
            return 80

    def _count(self, step: int, before: str = "step ") -> str:
        return f"{before}{step}" + (f"/{self._steps}" if self._steps is not None else "")

    def _left(self, step: int, rate: float | None) -> list[str]:
        if not rate:
            return []
        seconds = 0 if self._steps is None else int((self._steps - step) / rate)
        left = [] if self._steps is None else [f"{datetime.timedelta(seconds=seconds)} left"]
        return [*left, f"{rate:.3g} steps/s"]


def speed_figures(speed: Mapping[str, float]) -> list[str]:
    """Returns those figures of `accounting.figures` that the display shows."""
    shown = []
    if "model_flop_utilisation" in speed:
        shown.append(f"{speed['model_flop_utilisation']:.1%} of peak")
    elif "model_flops_per_second" in speed:
        shown.append(f"{speed['model_flops_per_second'] / 1e9:.3g} GFLOP/s")
    if "steps_per_second" in speed:
        waited = speed["seconds_per_step/data"] * speed["steps_per_second"]
        shown.append(f"waits for data {waited:.0%}")
    return shown
