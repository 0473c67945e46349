"""What TFDS asks of TensorFlow while it prepares a data set: files and images, in plain Python."""

import glob
import io
import os
import types
from typing import Any, NamedTuple

import numpy as np
from PIL import Image


class _Tensor(NamedTuple):
    """What TFDS asks of an eager tensor."""

    value: Any

    def numpy(self) -> Any:
        return self.value


def _decoded(data: bytes, channels: int = 3) -> _Tensor:
    del channels  # The callers want red, green and blue, from CMYK files too.
    with Image.open(io.BytesIO(data)) as image:
        return _Tensor(np.asarray(image.convert("RGB")))


def _encoded(image: np.ndarray, kind: str, **options: Any) -> _Tensor:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, kind, **options)
    return _Tensor(file.getvalue())


def _encode_jpeg(image: np.ndarray, format: str, quality: int) -> _Tensor:
    del format
    return _encoded(image, "jpeg", quality=quality)


STAND_IN = types.SimpleNamespace(
    compat=types.SimpleNamespace(as_text=os.fsdecode),
    # An empty tuple catches nothing, so that a full disk says so.
    errors=types.SimpleNamespace(ResourceExhaustedError=()),
    executing_eagerly=lambda: True,
    image=types.SimpleNamespace(
        decode_jpeg=_decoded,
        decode_png=_decoded,
        encode_jpeg=_encode_jpeg,
        encode_png=lambda image: _encoded(image, "png"),
    ),
    io=types.SimpleNamespace(
        gfile=types.SimpleNamespace(
            GFile=open, exists=os.path.exists, glob=glob.glob, remove=os.remove
        )
    ),
)
