"""C functions that do the work of many XLA operations, where the machine has a compiler.

Each stands beside the same in XLA's operations, which is its test and serves everywhere else: on
accelerators, on a mesh, without a compiler, and where the operations themselves are of interest.

A C or C++ file defines handlers of XLA's foreign function interface against the header that JAX
ships. It is compiled when it is first needed, for the processor at hand, and the library is kept
with XLA's compilations, where these are kept.
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
    """While open, what is traced has no C function in it, so that its operations can be read."""
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

    They can where these lie on one CPU: the types of arrays name the mesh that they lie on.
    """
    return wanted() and parallel.on_one_cpu(*arrays)


def threads() -> int:
    """Returns the number of processors that the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def registered(source: pathlib.Path) -> bool:
    """Compiles and registers the function of a C file; returns whether there is one.

    The target for `jax.ffi.ffi_call` has the name of the file without its ending.
    """
    compiler = os.environ.get("CC") or shutil.which("cc")
    return compiler is not None and register(source, (compiler, *_OPTIONS, "-lm"), (source.stem,))


def register(source: pathlib.Path, command: Sequence[str], names: Sequence[str]) -> bool:
    """Compiles a C or C++ file and registers its handlers by their names.

    Args:
        source: the file.
        command: compiles it, with the compiler first; the file, JAX's headers and the output are
            added.
        names: of the handlers, which are also the targets for `jax.ffi.ffi_call`.

    Returns:
        Whether they are there. A compiler that fails is said once, by a warning.
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
    """Returns the path of the shared library in a folder, where it may be already.

    Its name tells what it was made from and which processor for.
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
    """Returns what Linux says that the processor can do."""
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
