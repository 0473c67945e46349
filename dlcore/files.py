"""Opens the files that users give, so that none of them is read without end."""

import errno
import gzip
import io
import os
import stat

# Gzip packs text to a third or a tenth, and the same byte over and over to a thousandth.
_RATIO = 100
_SMALL = 1 << 26  # bytes that a file may unpack to whatever its size
_BLOCK = 1 << 20


def open_file(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Opens a file or a pipe for reading.

    A named pipe into which nobody writes is empty; opening it would wait for somebody who does.

    Raises:
        OSError: when there is no such file, or it is a device or a socket.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a device or a socket, no file", os.fspath(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "rb")


def unpacked(file: io.BufferedReader) -> io.BufferedReader:
    """Returns a reader of what gzip packed into a file, or the file itself where it is plain.

    Raises:
        OSError: on reading, when the file unpacks to far more than text or numbers do.
        EOFError: on reading, when the file ends too early.
        zlib.error: on reading, when the file is damaged.
    """
    if file.peek(2)[:2] != b"\x1f\x8b":
        return file
    return io.BufferedReader(_Unpacked(file), _BLOCK)


def read_whole(path: str | os.PathLike[str]) -> bytes:
    """Returns all bytes of a file, unpacked.

    Raises:
        OSError: when the file cannot be read, or takes more than a quarter of the machine's
            memory, of which a text needs several times its size.
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
    return bytes(data)


class _Unpacked(io.RawIOBase):
    """The bytes that gzip packed into a file, as many as text and numbers can be."""

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
