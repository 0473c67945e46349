"""The settings that must be made before JAX touches a device: XLA's flags and its cache."""

import os
import pathlib

import jax

from dlcore.runtime.cache import write_whole_entries

# XLA's CPU fusions of jaxlib 0.10 drop NaNs (relu(x @ w) of a NaN is 0) and crash on reductions of
# rank 7; an empty list of fusion types turns them off at the same speed. A jaxlib that does not
# know the flag would abort, so it is set for the versions that were tried. See docs/traps.md.
_NO_YNN_FUSION = "--xla_cpu_experimental_ynn_fusion_type="
_YNN_VERSIONS = ("0.10.", "0.11.")


def configure(*, compilation_cache: str | None = None) -> None:
    """Sets XLA's flags and turns the persistent compilation cache on.

    Call it once, before the first use of a device.

    Args:
        compilation_cache: the folder of the cache. By default the environment variable
            JAX_COMPILATION_CACHE_DIR, else ~/.cache/dlcore/compilations. A cache that cannot be
            written costs time but never ends a run: JAX warns and compiles. Processes may share it.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.__version__.startswith(_YNN_VERSIONS) and _NO_YNN_FUSION not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_NO_YNN_FUSION}".strip()
    cache = compilation_cache or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if cache is None:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        cache = str(pathlib.Path(home) / "dlcore" / "compilations")
    jax.config.update("jax_compilation_cache_dir", cache)
    write_whole_entries()
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
