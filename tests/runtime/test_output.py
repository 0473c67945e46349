"""Streams whose failures end nothing."""

import errno
import io
import sys

import pytest

from dlcore.runtime.output import unfailing


class Failing(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self._error = error

    def write(self, text):
        raise self._error

    flush = isatty = lambda self: self.write("")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        (None, None),
        (closed(), None),
        (Failing(BrokenPipeError(errno.EPIPE, "gone")), errno.EPIPE),
        (Failing(OSError(errno.ENOSPC, "full")), errno.ENOSPC),
        (Failing(OSError(errno.EIO, "the terminal has gone")), errno.EIO),
    ],
    ids=["none", "closed", "pipe", "full", "terminal"],
)
def test_no_stream_fails(monkeypatch, stream, told):
    output = unfailing(unfailing(stream))
    monkeypatch.setattr(sys, "stdout", output)
    print("a line", flush=True)
    assert output.write("three") == 5 and not output.isatty()
    assert (output.error and output.error.errno) == told


def test_text_arrives_and_characters_that_the_stream_lacks_are_escaped():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    output = unfailing(stream)
    print("кот,", "plain", "\udcff", file=output, flush=True)
    assert stream.buffer.getvalue() == b"\\u043a\\u043e\\u0442, plain \\udcff\n"
    assert output.encoding == "ascii"
