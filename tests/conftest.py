"""Strict by default: four virtual CPU devices, rank promotion raises, warnings are errors."""

import importlib.metadata
import os
import pathlib
import signal

# Before anything touches a backend. The suite compiles the same programs in many processes, so
# they share a compilation cache beside the checkout.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(pathlib.Path(__file__).resolve().parent.parent / ".dlcore" / "test-compilations"),
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Most of the suite's time is the compiler's, spent on programs that run once. `XLA_FLAGS=
# scripts/test` tests what users run. A jaxlib that does not know a flag aborts.
quick = ["--xla_backend_optimization_level=0"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    quick.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(quick))

# Started in the background, or by nohup, the suite ignores these, and so would all that it starts.
for ignored in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        signal.signal(ignored, signal.SIG_DFL)

import jax  # noqa: E402

from dlcore import runtime  # noqa: E402

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
runtime.configure()
