"""What a person sees of a run, and what stays of it in files."""

import errno
import io
import json
import os
import re
import resource
import signal

import pytest

from dlcore.errors import InputError
from dlcore.train import Logging
from dlcore.train.logs import RunLog
from dlcore.train.progress import Progress

SPEED = {"steps_per_second": 24.13, "seconds_per_step/data": 0.0}
SHOWN = ("accuracy", "loss")


class Screen(io.StringIO):
    """A terminal of 80 columns; `shows` gives its lines as they stand."""

    def isatty(self):
        return True

    def shows(self):
        lines = []
        for line in self.getvalue().split("\n"):
            drawn = ""
            for text in line.split("\r"):
                drawn = text + drawn[len(text) :]
            lines.append(drawn.rstrip())
        return lines


def watched(stream, **options):
    """A run of 30 steps with a report every 10, and an evaluation at 20."""
    progress = Progress(stream, steps=30, shown=SHOWN, **options)
    for step in range(1, 31):
        progress._drawn = -1.0  # each step draws, however fast the machine is
        progress.advance()
        if step % 10 == 0:
            progress.report(step, "train", {"loss": 1 / step, "accuracy": 0.5}, SPEED)
        if step == 20:
            progress.say("a note")
            progress.report(step, "validation", {"accuracy": 0.987654, "loss": 0.25, "x": 1}, {})
    progress.close()
    return stream


def test_on_a_terminal_the_line_stays_in_place_and_evaluations_and_notes_are_lines_of_their_own():
    *lines, last, end = watched(Screen()).shows()
    assert lines == ["a note", "step 20: validation accuracy 0.9877, validation loss 0.25"]
    assert last.startswith(
        "validation accuracy 0.9877, train loss 0.03333, 30/30, 0:00:00 left, 24.1"
    )
    assert end == ""


def test_without_a_terminal_each_report_is_a_plain_line():
    text = watched(io.StringIO()).getvalue()
    speed = "0:00:00 left, 24.1 steps/s, waits for data 0%"
    assert text.splitlines() == [
        f"step 10/30, train accuracy 0.5, train loss 0.1, {speed}",
        f"step 20/30, train accuracy 0.5, train loss 0.05, {speed}",
        "a note",
        "step 20: validation accuracy 0.9877, validation loss 0.25",
        f"step 30/30, train accuracy 0.5, train loss 0.03333, {speed}",
    ]
    assert watched(io.StringIO(), quiet=True).getvalue() == "a note\n"


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_line_ends_where_the_terminal_does_and_what_is_wanted_most_comes_first(
    monkeypatch, columns
):
    stream = Screen()
    monkeypatch.setattr(stream, "fileno", lambda: 7)
    sizes = {7: os.terminal_size((columns, 24))}
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: sizes[descriptor])
    progress = Progress(stream, steps=10**6, shown=SHOWN)
    progress.report(1000, "train", {"loss": 0.123456, "accuracy": 0.5}, SPEED)
    progress.report(1000, "validation", {"accuracy": 0.987654, "loss": 0.25}, {})
    progress.advance()
    shown = stream.getvalue().split("\r")[-1]
    assert shown.startswith("validation accuracy 0.9877, train loss ")
    assert len(shown) == min(columns - 1, len(progress.line()))
    assert ("11:30:42 left" in shown) == (columns > 40)


def test_a_run_about_its_loss_or_of_unknown_length_is_shown_too():
    progress = Progress(io.StringIO(), shown=("loss", "loss"))
    progress.report(3, "train", {"loss": 2.0}, {})
    progress.report(3, "test", {"loss": 3.0, "accuracy": 1.0}, {})
    assert progress.line() == "test loss 3, train loss 2, 0"


@pytest.mark.parametrize("terminal", [False, True])
def test_no_failure_of_the_terminal_ends_a_run(terminal):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "full")

        def isatty(self):
            return terminal

    closed = Screen()
    closed.close()
    for stream in (None, Full(), closed):
        watched(stream)


def test_the_log_makes_its_folder_and_says_in_its_own_words_when_it_cannot(tmp_path):
    log = RunLog(tmp_path / "runs" / "mine", progress=False)
    log.metrics(1, "test", {"loss": 1.0})
    log.close()
    assert (tmp_path / "runs" / "mine" / "metrics.jsonl").read_text().count("\n") == 1
    RunLog(str(tmp_path / "text"), progress=False).close()
    (tmp_path / "file").write_text("")
    (tmp_path / "runs" / "metrics.jsonl").write_text("no report\n")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "runs"):
        with pytest.raises(InputError, match="another folder$") as told:
            RunLog(folder, start=1, progress=False)
        assert "--" not in str(told.value)


@pytest.mark.parametrize("room", [0, 30, 60, 130, 300])
def test_a_full_disk_is_one_line_wherever_it_comes_and_closing_replaces_no_error(tmp_path, room):
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = None
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        with pytest.raises(InputError, match="cannot write to .*File too large; free space or"):
            log = RunLog(tmp_path, progress=False)
            try:
                for step in range(1, 9):
                    log.metrics(step, "train", {"loss": 1.0})
            finally:
                log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    log = RunLog(tmp_path, start=100, progress=False)  # what was cut short does not count
    log.metrics(101, "train", {"loss": 1.0})
    log.close()
    assert all(map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()))


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda lines: lines, None),
        (
            lambda lines: lines[:1] + lines[2:],
            "of 3 reports up to step 3 it holds 2, which",
        ),
        (lambda lines: lines[1:], "instead of 3 reports up to step 3 it holds 2"),
        (lambda lines: [], "holds 0"),
        (
            lambda lines: [*lines[:2], lines[2].replace("3.5", "3.4")],
            "it holds changed ones",
        ),
        (lambda lines: lines + lines[:1], "holds 4"),
        (None, "holds 0"),
    ],
    ids=["whole", "middle", "first", "empty", "changed", "twice", "gone"],
)
def test_reports_that_are_missing_are_named_when_a_run_continues(tmp_path, capsys, edit, told):
    log = RunLog(tmp_path, progress=False)
    for step in range(1, 6):
        log.metrics(step, "train", {"loss": step + 0.5})
        if step == 3:
            saved = log.saved()
    log.close()
    path = tmp_path / "metrics.jsonl"
    if edit is None:
        path.unlink()
    else:
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(edit(lines[:3]) + lines[3:]))
    log = RunLog(tmp_path, start=3, progress=False)
    Logging(log).load(saved)
    Logging(log).load({})  # of a checkpoint of an earlier version
    log.close()
    found = capsys.readouterr().err
    assert (found == "") if told is None else re.search(told, found)
    assert found.count("\n") <= 1
