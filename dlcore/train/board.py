"""The file of events that TensorBoard reads: curves, hyperparameters, texts and pictures."""

import os
import pathlib
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from dlcore.files import open_own

# The group of the figures that depend on the clock. TensorBoard sorts groups by their names and
# opens the first ones: those of the parts of the data (test, train, validation) come before it.
_CLOCK = "wall_clock"
_RGBA = 4  # TensorFlow's number of the kind of picture that Matplotlib writes


class Board:
    """A writer of TensorBoard events, which writes each event in the thread where it arises.

    The format comes from tensorboardX, whose own writer runs in a thread, so that no caller would
    see its errors.

    Args:
        workdir: the folder of the run, whose folder "tensorboard" the file is written into.
        start: the step at which the run goes on, so that TensorBoard drops what an earlier process
            wrote of later steps; None adds to a run that has ended.
        config: the hyperparameters by name, JSON values.

    Raises:
        OSError: when the file cannot be written; every method raises it too.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        start: int | None = None,
        config: Mapping[str, Any] | None = None,
    ):
        # Here, because it takes a tenth of a second that no other command should pay.
        from tensorboardX import summary
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.record_writer import masked_crc32c

        self._event, self._check = Event, masked_crc32c
        self._of, self._summary = summary, Summary
        self._config = config
        folder = workdir / "tensorboard"
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._file = open_own(folder / name, os.O_WRONLY | os.O_APPEND)
        self._write(file_version="brain.Event:2")
        if start is not None:
            self._write(step=start + 1, session_log=SessionLog(status=SessionLog.START))

    def metrics(
        self, step: int, split: str, metrics: Mapping[str, float], speed: Mapping[str, float]
    ) -> None:
        """Adds points to the curves; with the first evaluation come the hyperparameters.

        Args:
            step: the step of the report.
            split: the name of the split that was measured.
            metrics: the metrics by name.
            speed: figures that depend on the clock, by name.
        """
        tagged = {f"{split}/{name}": value for name, value in metrics.items()}
        if self._config and split != "train":  # their table shows the metrics beside them
            shown = {name: _shown(value) for name, value in self._config.items()}
            for summary in self._of.hparams(shown, dict.fromkeys(tagged))[:2]:
                self._write(step=step, summary=summary)
            self._config = None
        tagged |= {f"{_CLOCK}/{name}": value for name, value in speed.items()}
        # One event for all of them: each costs the host tens of microseconds.
        items = [self._summary.Value(tag=tag, simple_value=v) for tag, v in tagged.items()]
        self._write(step=step, summary=self._summary(value=items))

    def text(self, name: str, text: str, step: int) -> None:
        """Adds a text, whose lines stay as they are."""
        code = "\n".join(f"    {line}" for line in _shown(text).splitlines())  # of Markdown
        self._write(step=step, summary=self._of.text(name, code))

    def picture(self, path: pathlib.Path, step: int) -> None:
        """Adds a PNG file made by Matplotlib under a name."""
        data = path.read_bytes()
        width, height = struct.unpack(">II", data[16:24])
        image = self._summary.Image(
            width=width, height=height, colorspace=_RGBA, encoded_image_string=data
        )
        value = self._summary.Value(tag=path.stem, image=image)
        self._write(step=step, summary=self._summary(value=[value]))

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def _write(self, **event: Any) -> None:
        """Writes a record of TensorFlow's: its length and the event, each with its checksum."""
        data = self._event(wall_time=time.time(), **event).SerializeToString()
        parts = [struct.pack("<Q", len(data)), data]
        checked = [part + struct.pack("<I", self._check(part)) for part in parts]
        write_all(self._file, b"".join(checked))


def _shown(value: Any) -> Any:
    """Returns a JSON value as events can hold it: lists as text, and text that is valid UTF-8."""
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def write_all(descriptor: int, data: bytes) -> None:
    """Writes without a buffer, which would fail once more when it is closed."""
    while data:
        data = data[os.write(descriptor, data) :]
