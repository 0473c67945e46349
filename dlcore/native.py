"""C functions that replace many XLA operations, where the machine has a compiler.

Each function has an equivalent in XLA operations, which tests it and is used everywhere else: on
accelerators, on a mesh, without a compiler, and where the operations themselves are of interest.

A C or C++ file defines handlers of XLA's foreign function interface against the header that JAX
ships. It is compiled for the machine's processor when it is first needed. The library is stored
beside XLA's compilations, if these are stored.
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
import warnings
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import jax

from dlcore import parallel

_OPTIONS = (
    "-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fPIC", "-shared", "-pthread",
)  # fmt: skip
_SECONDS = 120  # that a compiler may take
_wanted: ContextVar[bool] = ContextVar("C functions", default=True)


@contextlib.contextmanager
def only_xla() -> Iterator[None]:
    """Keeps C functions out of programs traced while open, so that their operations can be read."""
    token = _wanted.set(False)
    try:
        yield
    finally:
        _wanted.reset(token)


def wanted() -> bool:
    """Returns whether C functions may be used here, which `only_xla` forbids."""
    return _wanted.get()


def serves(*arrays: jax.Array) -> bool:
    """Returns whether C functions can be called for arrays that are being traced.

    They can if the arrays lie on one CPU: the type of an array names the mesh that it lies on.
    """
    return wanted() and parallel.on_one_cpu(*arrays)


def threads() -> int:
    """Returns the number of processors that the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def registered(source: pathlib.Path) -> bool:
    """Compiles and registers the function of a C file; returns whether it is available.

    The target for `jax.ffi.ffi_call` has the name of the file without its ending.
    """
    compiler = os.environ.get("CC") or shutil.which("cc")
    return compiler is not None and register(source, (compiler, *_OPTIONS, "-lm"), (source.stem,))


def register(source: pathlib.Path, command: Sequence[str], names: Sequence[str]) -> bool:
    """Compiles a C or C++ file and registers its handlers by their names.

    Args:
        source: the file.
        command: the command line that compiles it, with the compiler first; the file, JAX's
            headers and the output are added to it.
        names: the names of the handlers, which are also the targets for `jax.ffi.ffi_call`.

    Returns:
        Whether the handlers are available. A compiler that fails causes a warning, once.
    """
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix=source.stem) as room:
        kept = pathlib.Path(folder) if folder and "://" not in folder else pathlib.Path(room)
        try:
            library = ctypes.CDLL(str(_compiled(source, command, kept)))
        except (OSError, subprocess.SubprocessError) as error:
            reason = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
            warnings.warn(
                f"{source.name} cannot be compiled by {command[0]} ({reason}); XLA's operations "
                "serve instead, which are slower",
                RuntimeWarning,
                stacklevel=2,
            )
            return False
    for name in names:
        handler = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(name, handler, platform="cpu")
    return True


def _compiled(source: pathlib.Path, command: Sequence[str], folder: pathlib.Path) -> pathlib.Path:
    """Returns the path of the shared library in a folder; compiles it if it is not there yet.

    The name depends on the source and the processor that the library was compiled for.
    """
    given = [*command, f"-I{jax.ffi.include_dir()}"]
    facts = [source.read_text(encoding="utf-8"), *given, jax.__version__, _processor()]
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()
    library = folder / f"{source.stem}-{digest[:16]}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # In a folder of its own until it is whole: other processes may look for it.
        with tempfile.TemporaryDirectory(prefix=source.stem, dir=folder) as room:
            made = pathlib.Path(room) / library.name
            # The file comes before the libraries that it needs.
            compiler, *options = given
            subprocess.run(
                [compiler, str(source), *options, "-o", str(made)],
                check=True, capture_output=True, encoding="utf-8", timeout=_SECONDS,
            )  # fmt: skip
            made.replace(library)
    return library


def _processor() -> str:
    """Returns the features of the processor that Linux reports."""
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
