"""Convolutions of float32 numbers on a CPU by oneDNN, where the extra `onednn` is installed.

oneDNN's kernels are up to four times as fast as XLA's, above all with few channels; PyTorch uses
the same kernels. XLA calls them through its foreign function interface. The calls are in
`onednn.cc`, which is compiled at their first use (see `dlcore.native`) and needs g++.

Shapes: B batch, I... image, O... output, F... window, C channels, K filters.
"""

import functools
import importlib.metadata
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import native

# The distribution that has a file, by the end of the file's path.
_FILES = {"dnnl.hpp": "onednn-devel-cpu-gomp", "libdnnl.so.3": "onednn-cpu-gomp"}
_SOURCE = pathlib.Path(__file__).with_suffix(".cc")
_CALLS = ("onednn_forward", "onednn_to_image", "onednn_to_kernel")
Pads = Sequence[tuple[int, int]]


def takes(
    x: jax.Array | jax.ShapeDtypeStruct,
    kernel: jax.Array,
    strides: Sequence[int],
    pads: Pads,
    dilation: Sequence[int],
) -> bool:
    """Returns whether oneDNN computes the convolution of x by the kernel, and its gradients.

    It leaves types other than float32, empty arrays, pads as wide as the window, and programs for
    several devices to XLA, which cannot split a foreign call over devices.

    Args:
        x: (B, I..., C).
        kernel: (F..., C, K).
        strides: the strides of the windows.
        pads: (start, end) in each dimension.
        dilation: the dilation of the windows.
    """
    reaches = [(f - 1) * d + 1 for f, d in zip(kernel.shape[:-2], dilation, strict=True)]
    return (
        x.dtype == kernel.dtype == jnp.float32
        and x.ndim <= 5
        and all([*x.shape, *kernel.shape])
        and all(0 <= pad < reach for ends, reach in zip(pads, reaches, strict=True) for pad in ends)
        and jax.device_count() == 1
        and native.wanted()
        and available()
    )


@functools.cache
def available() -> bool:
    """Returns whether oneDNN is installed and its calls are known to JAX."""
    try:
        header, library = (_installed(name, end) for end, name in _FILES.items())
    except importlib.metadata.PackageNotFoundError:
        return False
    command = (
        *("g++", "-O2", "-w", "-std=c++17", "-shared", "-fPIC", "-fopenmp"),
        *(f"-I{header.parent}", os.fspath(library), f"-Wl,-rpath,{library.parent}"),
    )
    return native.register(_SOURCE, command, _CALLS)


def forward(
    x: jax.Array,
    kernel: jax.Array,
    *,
    output: Sequence[int],
    strides: Sequence[int],
    pads: Pads,
    dilation: Sequence[int],
) -> jax.Array:
    """Maps (B, I..., C) by a kernel (F..., C, K) to (B, O..., K), the shape `output`."""
    return _call("forward", x, kernel, output, strides, pads, dilation)


def to_image(
    kernel: jax.Array,
    g: jax.Array,
    *,
    image: Sequence[int],
    strides: Sequence[int],
    pads: Pads,
    dilation: Sequence[int],
) -> jax.Array:
    """Returns the gradient with respect to x, of the shape `image`, of `g` (B, O..., K)."""
    return _call("to_image", kernel, g, image, strides, pads, dilation)


def to_kernel(
    x: jax.Array,
    g: jax.Array,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Pads,
    dilation: Sequence[int],
) -> jax.Array:
    """Returns the gradient with respect to the kernel, of the shape `kernel`."""
    return _call("to_kernel", x, g, kernel, strides, pads, dilation)


def _call(
    name: str,
    a: jax.Array,
    b: jax.Array,
    shape: Sequence[int],
    strides: Sequence[int],
    pads: Pads,
    dilation: Sequence[int],
) -> jax.Array:
    result = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
    start, end = zip(*pads, strict=True)
    sizes = {"strides": strides, "start": start, "end": end, "dilation": dilation}
    attributes: Any = {key: np.array(value, np.int64) for key, value in sizes.items()}
    call = jax.ffi.ffi_call(f"onednn_{name}", result, vmap_method="sequential")
    return jnp.asarray(call(a, b, **attributes))


def _installed(distribution: str, end: str) -> pathlib.Path:
    """Returns the path of the file with a suffix in an installed distribution."""
    for file in importlib.metadata.files(distribution) or []:
        if file.name == end and "oneapi" not in file.parts:
            return pathlib.Path(str(file.locate())).resolve()
    raise importlib.metadata.PackageNotFoundError(f"{distribution} without {end}")
