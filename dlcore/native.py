"""C functions that do the work of many XLA operations, where the machine has a C compiler.

Each stands beside the same in XLA's operations, which is its test and serves everywhere else: on
accelerators, on a mesh, without a compiler, and where the operations themselves are of interest.

A C file defines a handler of XLA's foreign function interface, by the name of the file, against the
header that JAX ships. It is compiled when it is first needed, for the processor at hand, and
the library is kept with XLA's compilations, where these are kept.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar

import jax

_OPTIONS = (
    "-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fPIC", "-shared", "-pthread",
)  # fmt: skip
_SECONDS = 120  # that a compiler may take
_wanted: ContextVar[bool] = ContextVar("C functions", default=True)


@contextlib.contextmanager
def only_xla() -> Iterator[None]:
    """While open, what is traced has no C function in it, so that its operations can be read."""
    token = _wanted.set(False)
    try:
        yield
    finally:
        _wanted.reset(token)


def serves(source: pathlib.Path, *arrays: jax.Array) -> bool:
    """Returns whether a C function can be called for arrays that are being traced.

    It can where they lie on one CPU: the types of arrays name the mesh that they lie on.

    Args:
        source: the C file, whose name without its ending is the target for `jax.ffi.ffi_call`.
        *arrays: those that may lie on a mesh.
    """
    return (
        _wanted.get()
        and jax.default_backend() == "cpu"
        and all(jax.typeof(array).sharding.mesh.size < 2 for array in arrays)
        and _registered(source)
    )


def threads() -> int:
    """Returns the number of processors that the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _registered(source: pathlib.Path) -> bool:
    """Compiles and registers a C function; returns whether there is one."""
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        return False
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix=source.stem) as room:
        kept = pathlib.Path(folder) if folder and "://" not in folder else pathlib.Path(room)
        try:
            library = ctypes.CDLL(str(_compiled(source, compiler, kept)))
        except (OSError, subprocess.SubprocessError):
            return False
    handler = jax.ffi.pycapsule(getattr(library, source.stem))
    jax.ffi.register_ffi_target(source.stem, handler, platform="cpu")
    return True


def _compiled(source: pathlib.Path, compiler: str, folder: pathlib.Path) -> pathlib.Path:
    """Returns the path of the shared library in a folder, where it may be already.

    Its name tells what it was made from and which processor for.
    """
    options = [*_OPTIONS, f"-I{jax.ffi.include_dir()}"]
    facts = [source.read_text(encoding="utf-8"), compiler, *options, jax.__version__, _processor()]
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()
    library = folder / f"{source.stem}-{digest[:16]}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # In a folder of its own until it is whole: other processes may look for it.
        with tempfile.TemporaryDirectory(prefix=source.stem, dir=folder) as room:
            made = pathlib.Path(room) / library.name
            subprocess.run(
                [compiler, *options, str(source), "-o", str(made), "-lm"],
                check=True, capture_output=True, timeout=_SECONDS,
            )  # fmt: skip
            made.replace(library)
    return library


def _processor() -> str:
    """Returns what Linux says that the processor can do."""
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
