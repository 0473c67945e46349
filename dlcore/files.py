"""Safe reading and writing of users' files, which may never end or may be links."""

import errno
import gzip
import io
import json
import os
import pathlib
import stat
import zlib
from collections.abc import Sequence
from typing import Any, Literal

from dlcore.errors import InputError

# Gzip packs text to a third or a tenth, and the same byte over and over to a thousandth.
_RATIO = 100
_SMALL = 1 << 26  # bytes that a file may unpack to whatever its size
_BLOCK = 1 << 20


def open_file(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Opens a file or a pipe for reading.

    A named pipe that no process writes to counts as empty; simply opening it would wait for a
    writer.

    Raises:
        OSError: when there is no such file, or it is a device or a socket.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a device or a socket, no file", os.fspath(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "rb")


def is_utf8(text: str) -> bool:
    """Returns whether a text, such as a path, is UTF-8; Python uses surrogates for other bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def unpacked(file: io.BufferedReader) -> io.BufferedReader:
    """Returns a reader of the content of a file packed by gzip, or the file itself if it is plain.

    Raises:
        OSError: on reading, when the file unpacks to far more than text or numbers would.
        EOFError: on reading, when the file ends too early.
        zlib.error: on reading, when the file is damaged.
    """
    if file.peek(2)[:2] != b"\x1f\x8b":
        return file
    return io.BufferedReader(_Unpacked(file), _BLOCK)


def read_whole(path: str | os.PathLike[str]) -> bytearray:
    """Returns all bytes of a file, unpacked.

    Raises:
        OSError: when the file cannot be read, or is larger than a quarter of the machine's memory,
            since a text needs several times its size.
        EOFError, zlib.error: when a packed file is damaged.
    """
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    data = bytearray()
    with open_file(path) as file:
        reader = unpacked(file)
        while block := reader.read(_BLOCK):
            data += block
            if len(data) > most:
                raise OSError(
                    errno.EFBIG, f"it is larger than {most:,} bytes, a quarter of the memory"
                )
    return data


def read_text(path: str | os.PathLike[str]) -> str:
    """Returns the text of a file in UTF-8, without a byte order mark at its start.

    All code that reads a user's text file as a whole uses this function, so that all readers accept
    the same files: plain ones and those packed by gzip, which it recognises by their content, not
    their name. (`dlcore.data.text.splitting` reads texts of any size in blocks and accepts the same
    files.)

    Raises:
        InputError: when the file cannot be read or is not UTF-8; the message names the line.
    """
    try:
        return read_whole(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"line {number} of {os.fspath(path)} is not UTF-8 (byte "
            f"0x{error.object[error.start]:02x}); convert the file to UTF-8"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot read {os.fspath(path)}: {reason}; give a file or folder of text"
        ) from None


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        OSError: when the file cannot be read.
        ValueError: when it is not JSON, or JSON of another kind.
    """
    with open_file(path) as file:
        return _objects([file.read()])[0]


def read_json_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the objects in a file that holds one JSON object on each line.

    Raises:
        OSError: when the file cannot be read.
        ValueError: when a line is not JSON, or JSON of another kind.
    """
    with open_file(path) as file:
        return _objects(file.readlines())


def _objects(texts: Sequence[bytes]) -> list[dict[str, Any]]:
    try:
        found = [json.loads(text) for text in texts]
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if not all(isinstance(value, dict) for value in found):
        raise ValueError("it holds other JSON than an object")
    return found


def write_whole(
    path: pathlib.Path,
    content: str | bytes,
    *,
    errors: Literal[
        "strict", "backslashreplace", "xmlcharrefreplace", "surrogateescape"
    ] = "strict",
) -> None:
    """Writes bytes, or a text in UTF-8, so that the file is either complete or absent.

    A link at the path is replaced, and its target stays as it is. (A folder from elsewhere, such as
    an unpacked run, may have links to files outside of it.)

    Args:
        path: the path of the file.
        content: the text or bytes to write.
        errors: what to write for half a surrogate pair, as `str.encode` takes it.

    Raises:
        OSError: when the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with partial.open("xb") as file:
        file.write(content.encode("utf-8", errors) if isinstance(content, str) else content)
    partial.replace(path)


def open_own(path: pathlib.Path, flags: int) -> int:
    """Returns a descriptor of a file, which is made if it does not exist; follows no link.

    Args:
        path: the path of the file.
        flags: the access flags of `os.open`, such as os.O_RDWR.

    Raises:
        OSError: when the file cannot be opened, or is a link.
    """
    try:
        return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(errno.ELOOP, f"{path.name} is a link; remove it", str(path)) from None


class _Unpacked(io.RawIOBase):
    """A reader of a gzip file that refuses files that unpack to more than text or numbers would."""

    def __init__(self, file: io.BufferedReader):
        self._gzip = gzip.GzipFile(fileobj=file)
        self._most = max(_SMALL, _RATIO * os.fstat(file.fileno()).st_size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._gzip.seek(offset, whence)

    def tell(self) -> int:
        return self._gzip.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._gzip.read(len(buffer))
        if self._gzip.tell() > self._most:
            raise OSError(
                errno.EFBIG,
                f"it unpacks to more than {_RATIO} times its size; unpack it yourself if it should",
            )
        buffer[: len(data)] = data
        return len(data)
