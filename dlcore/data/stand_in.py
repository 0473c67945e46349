"""The parts of TensorFlow that TFDS needs to make a builder and prepare data, in plain Python."""

import glob
import io
import os
import types
from typing import NamedTuple

import numpy as np
from PIL import Image

from dlcore.data.pictures import FORMATS


class _Tensor(NamedTuple):
    """An eager tensor with only what TFDS uses of one."""

    value: np.ndarray | bytes

    def numpy(self) -> np.ndarray | bytes:
        return self.value


def _decode(data: bytes, channels: int = 3) -> _Tensor:
    del channels  # The callers want red, green and blue, from CMYK files too.
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return _Tensor(np.asarray(image.convert("RGB")))


def _encode(image: np.ndarray, format: str, **kwargs: int) -> _Tensor:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, format, **kwargs)
    return _Tensor(file.getvalue())


def _encode_jpeg(image: np.ndarray, format: str, quality: int) -> _Tensor:
    del format
    return _encode(image, "jpeg", quality=quality)


STAND_IN = types.SimpleNamespace(
    compat=types.SimpleNamespace(as_text=os.fsdecode),
    # TFDS catches this error; an empty tuple catches nothing, so that a full disk shows as such.
    errors=types.SimpleNamespace(ResourceExhaustedError=()),
    executing_eagerly=lambda: True,
    int64=np.int64,
    image=types.SimpleNamespace(
        decode_jpeg=_decode,
        decode_png=_decode,
        encode_jpeg=_encode_jpeg,
        encode_png=lambda image: _encode(image, "png"),
    ),
    io=types.SimpleNamespace(
        gfile=types.SimpleNamespace(
            GFile=open,
            exists=os.path.exists,
            glob=glob.glob,
            isdir=os.path.isdir,
            listdir=os.listdir,
            remove=os.remove,
        )
    ),
)
