import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest


@pytest.mark.parametrize("shape", [(128, 784, 128), (64, 32, 128)])
def test_a_nan_is_not_hidden_by_a_fused_rectifier(shape):
    """XLA's CPU fusions made this mean 0; conftest.py configures the suite as experiments are."""
    rows, inner, columns = shape
    mean = jax.jit(lambda x, w: jax.nn.relu(x @ w).mean())
    assert jnp.isnan(mean(jnp.full((rows, inner), jnp.nan), jnp.ones((inner, columns))))


CODE = """
import os, jax
from dlcore import runtime
runtime.configure({argument})
runtime.configure({argument})
print(jax.config.jax_compilation_cache_dir, os.environ["XLA_FLAGS"])
"""


@functools.cache
def configured(argument="", **environment):
    """The cache folder and the XLA flags after configuring in a fresh process."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS", "XDG_CACHE_HOME")
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(argument=argument)],
        env=kept | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


FLAG = "--xla_cpu_experimental_ynn_fusion_type="
OTHER_FLAG = {"JAX_COMPILATION_CACHE_DIR": "/y", "XLA_FLAGS": "--xla_a=1"}
SAME_FLAG = {"JAX_COMPILATION_CACHE_DIR": "/y", "XLA_FLAGS": f"{FLAG}3"}


def test_the_cache_is_the_users_folder_unless_told_otherwise():
    assert configured(XDG_CACHE_HOME="/x") == ["/x/dlcore/compilations", FLAG]
    assert configured(**OTHER_FLAG)[0] == "/y"
    assert configured("compilation_cache='/z'", **SAME_FLAG)[0] == "/z"


def test_the_users_own_flags_stay():
    assert configured(**OTHER_FLAG)[1:] == ["--xla_a=1", FLAG]
    assert configured("compilation_cache='/z'", **SAME_FLAG)[1:] == [f"{FLAG}3"]
