"""Initialisers: a signal keeps its size through ten layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import nn
from dlcore.errors import InputError


@pytest.mark.parametrize(
    "name, act",
    [
        ("xavier_uniform", "linear"),
        ("xavier_normal", "linear"),
        ("lecun_uniform", "linear"),
        ("lecun_normal", "linear"),
        ("he_uniform", "relu"),
        ("he_normal", "relu"),
    ],
)
def test_size_of_the_signal_after_ten_layers(name, act):
    """The size is a mean over 8 networks of width 256; one alone varies by a quarter."""

    def ratio(key):
        x = jax.random.normal(jax.random.fold_in(key, 10), (32, 256))
        h = x
        for i in range(10):
            kernel = nn.initialiser(name)(jax.random.fold_in(key, i), (256, 256), jnp.float32)
            h = nn.activation(act)(h @ kernel)
        return jnp.mean(h**2) / jnp.mean(x**2)

    ratios = jax.jit(jax.vmap(ratio))(jax.random.split(jax.random.key(0), 8))
    assert 0.8 <= ratios.mean() <= 1.25  # With the wrong gain the size would be 0.001 or 1,000.


def test_all_are_tested_and_unknown_ones_refused():
    assert len(nn.INITIALISERS) == 7
    with pytest.raises(InputError, match="unknown initialiser 'xavier'; choose one of: he_normal"):
        nn.initialiser("xavier")


def test_orthogonal_keeps_every_length():
    x = jax.random.normal(jax.random.key(0), (5, 16))
    h = x
    for key in jax.random.split(jax.random.key(1), 10):
        h = h @ nn.initialiser("orthogonal")(key, (16, 16), jnp.float32)
    np.testing.assert_allclose((h**2).sum(-1), (x**2).sum(-1), rtol=1e-5)
