"""What must be settled before JAX touches a device: XLA's flags, its memory, its cache."""

import ctypes
import os
import pathlib

import jax

# XLA's CPU fusions of jaxlib 0.10 drop NaNs (relu(x @ w) of a NaN is 0) and crash on reductions of
# rank 7; an empty list of fusion types turns them off at the same speed. A jaxlib that does not
# know the flag would abort, so it is set for the versions that were tried. See BUILD_NOTES.md.
_NO_YNN_FUSION = "--xla_cpu_experimental_ynn_fusion_type="
_YNN_VERSIONS = ("0.10.", "0.11.")

# XLA allocates the temporary buffers of a step anew at each step, in threads of its own. glibc
# gives large ones, and all that outgrow 64 MiB outside of its main arena, pages of their own, which
# the kernel clears each time and takes back: 21,000 page faults and a third of the time of a step
# of a language model of 10,000 words. One arena that keeps what was freed costs nothing after the
# first step. Buffers above 1 GiB still go back. See mallopt(3).
_MALLOPT = {
    -8: 1,  # M_ARENA_MAX
    -3: 1 << 30,  # M_MMAP_THRESHOLD, bytes
    -1: (1 << 31) - 1,  # M_TRIM_THRESHOLD
    -2: 64 << 20,  # M_TOP_PAD
}


def configure(*, compilation_cache: str | None = None) -> None:
    """Sets XLA's flags, keeps freed memory, and turns the persistent compilation cache on.

    Call it once, before the first use of a device.

    Args:
        compilation_cache: the folder of the cache. By default the environment variable
            JAX_COMPILATION_CACHE_DIR, else ~/.cache/dlcore/compilations. A cache that cannot be
            written costs time, never a run: JAX warns and compiles.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.__version__.startswith(_YNN_VERSIONS) and _NO_YNN_FUSION not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_NO_YNN_FUSION}".strip()
    cache = compilation_cache or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if cache is None:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        cache = str(pathlib.Path(home) / "dlcore" / "compilations")
    jax.config.update("jax_compilation_cache_dir", cache)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # Only glibc has it.
        for parameter, value in _MALLOPT.items():
            mallopt(parameter, value)
