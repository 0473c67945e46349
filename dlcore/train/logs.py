"""The logs that a run writes while it goes on: metrics.jsonl, TensorBoard and one progress line."""

import contextlib
import json
import math
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from dlcore.errors import InputError
from dlcore.files import open_own, write_whole
from dlcore.runtime import processes

if TYPE_CHECKING:
    from dlcore.train.tracking import Tracker

METRICS_FILE = "metrics.jsonl"


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turns a failed write below `path` into one clear line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write to {path}: {error.strerror or error}; free space or choose another "
            "--workdir"
        ) from error


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON so that the file is whole or not there."""
    with writing(path):
        write_whole(path, json.dumps(value, indent=2) + "\n")


class RunLog:
    """Writes the metrics of a run; of several processes only the first does.

    metrics.jsonl holds one line per report, {"step": ..., "split": ..., metric: value, ...}, and
    nothing that depends on the clock: a run that was killed and continued writes the same bytes.
    The speed goes to TensorBoard and to the progress line. A number that is not finite is null.

    Args:
        workdir: where to write; None writes nothing.
        start: the step at which the run continues; later lines are of a part of the run that is
            done once more, and go.
        steps: the last step, for the progress line.
        shown: the metrics that the progress line shows.
        progress: whether to show the progress line.
        tracker: what follows the metrics besides, see `dlcore.train.tracking`.

    Raises:
        InputError: when the folder cannot be written.
    """

    def __init__(
        self,
        workdir: pathlib.Path | None,
        *,
        start: int = 0,
        steps: int | None = None,
        shown: tuple[str, ...] = ("loss",),
        progress: bool = True,
        tracker: "Tracker | None" = None,
    ):
        self._file = None
        self._board = None
        if not processes.is_primary():
            workdir, progress = None, False
        if workdir is not None:
            self._path = workdir / METRICS_FILE
            with writing(workdir):
                _keep_until(self._path, start)
                self._file = open(
                    open_own(self._path, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8"
                )
            # Here, because it takes a tenth of a second that no other command should pay.
            from tensorboardX import FileWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
            from tensorboardX.proto.summary_pb2 import Summary

            self._summary = Summary
            with writing(workdir):
                self._board = FileWriter(str(workdir / "tensorboard"))
            # Tells TensorBoard to drop what an earlier process wrote of later steps.
            started = SessionLog(status=SessionLog.START)
            self._board.add_event(Event(step=start + 1, session_log=started))
        self._tracker = tracker
        self._shown = shown
        self._line: dict[str, str] = {}
        self._bar = tqdm(
            initial=start,
            total=steps,
            unit="step",
            dynamic_ncols=True,
            disable=not progress,
            file=sys.stderr,
            mininterval=0.5,
        )

    def metrics(
        self,
        step: int,
        split: str,
        metrics: Mapping[str, float],
        *,
        speed: Mapping[str, float] | None = None,
    ) -> None:
        """One report of the metrics of a split.

        Args:
            step: the number of the last step.
            split: whose metrics they are.
            metrics: by name.
            speed: figures that depend on the clock, for TensorBoard and the progress line alone;
                those of `accounting.figures`.
        """
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        if self._file is not None:
            with writing(self._path):
                self._file.write(json.dumps({"step": step, "split": split, **finite}) + "\n")
                self._file.flush()
        if self._board is not None:
            # One event for all of them: each costs the host tens of microseconds.
            tagged = {f"{split}/{name}": value for name, value in metrics.items()}
            tagged |= {f"speed/{name}": value for name, value in (speed or {}).items()}
            items = [self._summary.Value(tag=tag, simple_value=v) for tag, v in tagged.items()]
            self._board.add_summary(self._summary(value=items), step)
        if self._tracker is not None:
            self._tracker.metrics(step, split, metrics)
        for name in self._shown:
            if name in metrics:
                self._line[f"{split} {name}"] = f"{metrics[name]:.4g}"
        self._line |= _shown_speed(speed or {})
        self._bar.set_postfix(self._line, refresh=False)

    def advance(self) -> None:
        """One step more on the progress line."""
        self._bar.update()

    def say(self, line: str) -> None:
        """A line for the person at the terminal, above the progress line."""
        tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        """Ends the progress line and the files."""
        self._bar.close()
        if self._tracker is not None:
            self._tracker.close()
        if self._board is not None:
            self._board.close()
        if self._file is not None:
            self._file.close()


def _shown_speed(speed: Mapping[str, float]) -> dict[str, str]:
    """Returns the figures of the speed that the progress line shows."""
    shown = {}
    if "model_flop_utilisation" in speed:
        shown["of peak"] = f"{speed['model_flop_utilisation']:.1%}"
    elif "model_flops_per_second" in speed:
        shown["GFLOP/s"] = f"{speed['model_flops_per_second'] / 1e9:.3g}"
    if "steps_per_second" in speed:
        waited = speed["seconds_per_step/data"] * speed["steps_per_second"]
        shown["waits for data"] = f"{waited:.0%}"
    return shown


def _whole_lines(path: pathlib.Path) -> list[str]:
    """The lines of the file; the last one, when a kill cut it short, does not count."""
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _keep_until(path: pathlib.Path, step: int) -> None:
    if path.exists():
        try:
            kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step]
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{path} holds a line that no run wrote; mend it, or choose another --workdir"
            ) from None
        write_whole(path, "".join(kept))
