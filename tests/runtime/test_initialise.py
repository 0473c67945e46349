import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import nn, runtime
from dlcore.runtime.layout import compiling_quickly


def make_state():
    keys = jax.random.split(jax.random.key(3), 3)
    return {
        "normal": jax.random.truncated_normal(keys[0], -2, 2, (33, 17)) * 0.1,
        "uniform": jax.random.uniform(keys[1], (50,), minval=-1),
        "layer": nn.BatchNorm().init(keys[2], jnp.ones((2, 5))),
    }


@pytest.mark.parametrize("flags", ["", "--xla_backend_optimization_level=0"])
def test_a_state_that_is_compiled_quickly_has_the_bits_of_any_other(monkeypatch, flags):
    plain = jax.jit(make_state, compiler_options={"xla_backend_optimization_level": 3})()
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert compiling_quickly() == (None if flags else {"xla_backend_optimization_level": 1})
    if not flags:
        made = runtime.layout("jit").initialise(make_state)
        jax.tree.map(np.testing.assert_array_equal, plain, made)
