"""Strict by default: four virtual CPU devices, mixed ranks and types raise, warnings are errors."""

import ctypes
import functools
import gc
import importlib.metadata
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from _pytest.doctest import DoctestModule

# Before anything touches a backend. The suite compiles the same programs in many processes, so it
# keeps compilation caches beside the checkout: one for each worker, because JAX does not write its
# entries in one piece. The workers inherit the environment of the process that starts them.
os.environ["JAX_PLATFORMS"] = "cpu"
CACHES = pathlib.Path(__file__).resolve().parent.parent / ".dlcore" / "test-compilations"
cache = pathlib.Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", CACHES / "main"))
if cache.parent == CACHES:
    cache = CACHES / os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Most of the suite's time is the compiler's, spent on programs that run once. `XLA_FLAGS=
# scripts/test` tests what users run. A jaxlib that does not know a flag aborts.
jaxlib = importlib.metadata.version("jaxlib")
quick = ["--xla_backend_optimization_level=0"]
if jaxlib.startswith("0.10."):
    quick.append("--xla_cpu_use_fusion_emitters=false")
if jaxlib.startswith(("0.10.", "0.11.")):
    quick.append("--xla_llvm_disable_expensive_passes=true")
    # Programs that are compiled in one piece are rounded otherwise, which moves the devices of some
    # slow tests apart by more than these allow.
    if "not slow" in sys.argv:
        quick.append("--xla_cpu_parallel_codegen_split_count=1")
os.environ.setdefault("XLA_FLAGS", " ".join(quick))

# Started in the background, or by nohup, the suite ignores these, and so would all that it starts.
for ignored in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        signal.signal(ignored, signal.SIG_DFL)

import flax.linen  # noqa: E402
import jax  # noqa: E402
import optax  # noqa: E402

from dlcore import runtime  # noqa: E402

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
runtime.configure()


def promoting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets a function of Flax or Optax mix integers and floats, as a few of theirs do."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return wrapped


def making_promoting(make: Callable[..., Any]) -> Callable[..., Any]:
    """Lets the schedules that a function of Optax makes mix integers and floats."""
    return functools.wraps(make)(lambda *args, **kwargs: promoting(make(*args, **kwargs)))


flax.linen.avg_pool = promoting(flax.linen.avg_pool)
optax.tree.bias_correction = promoting(optax.tree.bias_correction)
optax.cosine_decay_schedule = making_promoting(optax.cosine_decay_schedule)
optax.piecewise_constant_schedule = making_promoting(optax.piecewise_constant_schedule)

# JAX keeps every compiled program. A process that has more memory than this forgets them all.
MOST_BYTES = 3 << 29


def pytest_collection_finish() -> None:
    """Spares the garbage collector what stays: it took an eighth of the time that tracing takes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Keeps the memory of a worker below 2 GB, so that two of them fit beside other work."""
    yield
    if resident_bytes() > MOST_BYTES:
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Iterator[None]:
    """Collects doctests from dlcore alone: a helper of a test is imported by its test."""
    collectors = yield
    return [collector for collector in collectors if not isinstance(collector, DoctestModule)]
