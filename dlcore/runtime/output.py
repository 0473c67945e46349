"""Streams for people, whose failures must not end the work."""

from typing import Any, TextIO


class Unfailing:
    """A text stream whose writes never fail: if it is closed or its disk is full, the text is lost.

    Characters that the stream's encoding does not have are written as escapes.

    Attributes:
        error: the last error of the operating system.
    """

    def __init__(self, stream: TextIO | None):
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._try("write", text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def isatty(self) -> bool:
        return bool(self._try("isatty"))

    def _try(self, method: str, *arguments: str) -> Any:
        try:
            # Python has no stream where its descriptor was closed before the start.
            return getattr(self._stream, method)(*arguments) if self._stream is not None else None
        except OSError as error:
            self.error = error
        except ValueError:  # it was closed since
            pass
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def unfailing(stream: TextIO | Unfailing | None) -> Unfailing:
    """Returns a stream whose writes never fail, or the same one if it is one already."""
    return stream if isinstance(stream, Unfailing) else Unfailing(stream)
