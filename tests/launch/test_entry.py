"""How a command ends."""

import errno
import io
import sys

import pytest

from dlcore.errors import InputError
from dlcore.launch.entry import guarded
from dlcore.launch.process import say


class Failing(io.StringIO):
    def __init__(self, number):
        super().__init__()
        self._number = number

    def write(self, text):
        raise OSError(self._number, "no room")


def end(monkeypatch, command, **streams):
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    with pytest.raises(SystemExit) as ended:
        guarded(command)
    return ended.value.code or 0


@pytest.mark.parametrize(
    ("number", "status"), [(errno.ENOSPC, 2), (errno.EPIPE, 0)], ids=["full", "pipe"]
)
def test_output_that_cannot_be_written_ends_no_work_and_is_told_at_the_end(
    monkeypatch, number, status
):
    errors, done = io.StringIO(), []

    def command():
        print("a result", flush=True)
        say("a note")
        done.append("all")
        return 0

    assert end(monkeypatch, command, stdout=Failing(number), stderr=errors) == status
    assert done == ["all"]
    told = "error: cannot write to standard output: no room\n" if status else ""
    assert errors.getvalue() == "a note\n" + told


@pytest.mark.parametrize("stream", [None, Failing(errno.ENOSPC)], ids=["closed", "full"])
@pytest.mark.parametrize(("error", "status"), [(None, 0), (InputError("bad"), 2)])
def test_notes_and_errors_that_cannot_be_told_change_no_status(monkeypatch, stream, error, status):
    def command():
        say("a note")
        if error:
            raise error
        return 0

    assert end(monkeypatch, command, stdout=None, stderr=stream) == status
