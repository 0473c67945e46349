"""The logs that a run writes as it goes: metrics.jsonl, TensorBoard and its progress."""

import contextlib
import json
import math
import os
import pathlib
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlcore.errors import InputError
from dlcore.files import open_own, write_whole
from dlcore.runtime import processes
from dlcore.train.board import Board, write_all
from dlcore.train.progress import Progress

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
            "folder"
        ) from error


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON so that the file is either complete or absent."""
    with writing(path):
        write_whole(path, json.dumps(value, indent=2) + "\n")


def write_table(path: pathlib.Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes a table with tabs between its columns; tabs within a text become spaces."""
    lines = ["\t".join(text.replace("\t", " ") for text in row) for row in (header, *rows)]
    with writing(path):
        write_whole(path, "".join(f"{line}\n" for line in lines))


class RunLog:
    """The log of a run's metrics; of several processes only the first writes it.

    metrics.jsonl holds one line per report, {"step": ..., "split": ..., metric: value, ...}, and
    nothing that depends on the clock: a run that was killed and continued writes the same bytes.
    The speed goes to TensorBoard and to the person at the terminal. A number that is not finite is
    null.

    Args:
        workdir: the folder to write to, made when it does not exist; None writes nothing.
        start: the step at which the run continues; lines of later steps are dropped, because the
            run does these steps once more.
        steps: the last step, for the progress.
        shown: the metrics that the person at the terminal sees, the most important one first.
        progress: whether to show the progress, see `dlcore.train.progress`.
        config: the hyperparameters by name, JSON values, for TensorBoard.
        tracker: an experiment tracker that gets the metrics too, see `dlcore.train.tracking`.

    Raises:
        InputError: when the folder cannot be written.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str] | None,
        *,
        start: int = 0,
        steps: int | None = None,
        shown: tuple[str, ...] = ("loss",),
        progress: bool = True,
        config: Mapping[str, Any] | None = None,
        tracker: "Tracker | None" = None,
    ):
        self._file: int | None = None
        self._board: Board | None = None
        self._start, self._lines, self._sum = start, 0, 0
        if not processes.is_primary():
            workdir, progress = None, False
        if workdir is not None:
            folder = pathlib.Path(workdir)
            self._path = folder / METRICS_FILE
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                kept = _keep_until(self._path, start)
                self._file = open_own(self._path, os.O_WRONLY | os.O_APPEND)
                self._board = Board(folder, start=start, config=config)
            self._lines, self._sum = kept.count(b"\n"), zlib.crc32(kept)
        self._tracker = tracker
        self._progress = Progress(
            sys.stderr, start=start, steps=steps, shown=shown, quiet=not progress
        )

    def metrics(
        self,
        step: int,
        split: str,
        metrics: Mapping[str, float],
        *,
        speed: Mapping[str, float] | None = None,
    ) -> None:
        """Reports the metrics of a split.

        Args:
            step: the number of the last step.
            split: the name of the split that was measured.
            metrics: the metrics by name.
            speed: figures that depend on the clock, which go to TensorBoard and the progress alone,
                as from `accounting.figures`.
        """
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        if self._file is not None:
            line = (json.dumps({"step": step, "split": split, **finite}) + "\n").encode()
            with writing(self._path):
                write_all(self._file, line)
            self._lines, self._sum = self._lines + 1, zlib.crc32(line, self._sum)
        if self._board is not None:
            with writing(self._path.parent):
                self._board.metrics(step, split, metrics, speed or {})
        if self._tracker is not None:
            self._tracker.metrics(step, split, metrics)
        self._progress.report(step, split, metrics, speed or {})

    def text(self, name: str, text: str, step: int) -> None:
        """Shows a text in TensorBoard, such as a sample written by the model."""
        if self._board is not None:
            with writing(self._path.parent):
                self._board.text(name, text, step)

    def advance(self) -> None:
        """Counts one step more."""
        self._progress.advance()

    def say(self, line: str) -> None:
        """Prints a line for the person at the terminal."""
        self._progress.say(line)

    def saved(self) -> dict[str, Any]:
        """Returns values by which `check` can later tell whether the reports are still there."""
        return {} if self._file is None else {"reports": [self._lines, self._sum]}

    def check(self, saved: Mapping[str, Any]) -> None:
        """Prints a warning when the reports that a run continues are not those that it wrote."""
        lines, checksum = saved.get("reports", (self._lines, self._sum))
        if self._file is not None and (lines, checksum) != (self._lines, self._sum):
            found = "changed ones" if lines == self._lines else str(self._lines)
            self.say(
                f"{self._path} is not what this run wrote: instead of {lines} reports up to step "
                f"{self._start} it holds {found}, which are all that curves will show"
            )

    def close(self) -> None:
        """Ends the progress and the files."""
        self._progress.close()
        if self._tracker is not None:
            self._tracker.close()
        if self._file is not None:
            os.close(self._file)
        if self._board is not None:
            self._board.close()
        self._file = self._board = None


def show_pictures(workdir: pathlib.Path, pictures: Iterable[pathlib.Path], step: int) -> None:
    """Shows pictures in the TensorBoard of a run that has ended, each under its name.

    Args:
        workdir: the folder of the run.
        pictures: PNG files made by Matplotlib, by name.
        step: the step that they belong to.

    Raises:
        InputError: when the folder cannot be written.
    """
    with writing(workdir), contextlib.closing(Board(workdir)) as board:
        for path in sorted(pictures):
            board.picture(path, step)


def _keep_until(path: pathlib.Path, step: int) -> bytes:
    """Drops the reports of later steps from a file, and returns what stays.

    A last line that a kill cut short does not count.
    """
    if not path.exists():
        return b""
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    try:
        kept = b"".join(line for line in lines if json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{path} holds a line that no run wrote; repair it, or choose another folder"
        ) from None
    write_whole(path, kept.decode())
    return kept
