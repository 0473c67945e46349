"""Attention in chunks equals attention at once, in memory that grows with the length alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.nn.attention.chunked import chunked_attention
from dlcore.nn.attention.functions import attention

# Batch, queries, keys, heads, key heads, features, value features.
B, Q, K, H, G, D, E = 2, 11, 17, 4, 2, 8, 5
RNG = np.random.default_rng(1)
INPUTS = tuple(
    RNG.normal(size=shape).astype(np.float32)
    for shape in ((B, Q, H, D), (B, K, G, D), (B, K, G, E))
)
COTANGENT = RNG.normal(size=(B, Q, H, E)).astype(np.float32)
RANDOM = RNG.random((B, H, Q, K)) < 0.5
SLOPES = np.array([1, 0.5, 0.25, 0.125], np.float32)

CASES = {
    "plain": {},
    "padding": {"mask": (np.arange(K)[None] < np.array([[17], [6]]))[:, None, None]},
    "mask": {"mask": RANDOM & (np.arange(Q) != 4)[:, None], "scale": 0.5},
    "mask of queries": {"mask": RANDOM[:1, :, :, :1]},
    "causal": {"causal": True},
    "all": {"causal": True, "slopes": SLOPES, "mask": RANDOM[:, :1]},
    "places": {
        "causal": True,
        "slopes": SLOPES,
        "positions": RNG.integers(0, K, (B, Q), dtype=np.int32),
    },
}


@pytest.mark.parametrize(
    "name, chunk",
    [
        *(
            pytest.param(
                name, 4, marks=[pytest.mark.slow] * (name not in ("plain", "padding", "all"))
            )
            for name in CASES
        ),
        pytest.param("all", 1, marks=pytest.mark.slow),
        ("all", 11),
        ("all", 100),
    ],
)
def test_chunks_change_nothing(name, chunk):
    def with_gradients(inputs, chunk):
        out, backward = jax.vjp(functools.partial(attention, **CASES[name], chunk=chunk), *inputs)
        return out, backward(COTANGENT)

    run = jax.jit(with_gradients, static_argnums=1)
    (out, gradients), (expected, exact) = run(INPUTS, chunk), run(INPUTS, None)
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)
    for one, other in zip(gradients, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=5e-6, atol=5e-6)


def test_large_scores_neither_overflow_nor_vanish():
    found = jax.jit(functools.partial(chunked_attention, chunk=4, scale=100.0))(*INPUTS)
    np.testing.assert_allclose(found, attention(*INPUTS, scale=100.0), atol=2e-5)


def test_tiles_in_the_future_are_not_visited():
    @jax.value_and_grad
    def loss(value):
        return chunked_attention(query, key, value, chunk=4, causal=True)[:, :4].sum()

    query, key, value = (x[:, :8] for x in INPUTS)
    # A weight of 0 times a NaN value would be NaN, so the tile must not be read at all.
    found, gradient = jax.jit(loss)(jnp.asarray(value).at[:, 4:].set(jnp.nan))
    assert jnp.isfinite(found)
    assert (gradient[:, 4:] == 0).all() and (gradient[:, :4] != 0).all()


def test_half_precision_sums_in_single_precision():
    @jax.jit
    def with_gradients(inputs):
        out, backward = jax.vjp(functools.partial(chunked_attention, chunk=2), *inputs)
        return out, *backward(out)

    half = tuple(x.astype(jnp.bfloat16) for x in INPUTS)
    found = with_gradients(half)
    assert all(x.dtype == jnp.bfloat16 for x in found)
    exact = attention(*(x.astype(jnp.float32) for x in half))
    np.testing.assert_allclose(found[0], exact, atol=2**-7)


def test_memory_grows_linearly():
    def loss(chunk, *inputs):
        mask = inputs[1][:, None, None, :, 0, 0] > 0
        out = attention(*inputs, mask=mask, causal=True, slopes=SLOPES, chunk=chunk)
        return out.sum()

    def needed(length, chunk):
        """Returns the MiB of temporary buffers that the compiled gradient needs."""
        x = jax.ShapeDtypeStruct((1, length, 4, 32), jnp.float32)
        run = jax.jit(jax.grad(functools.partial(loss, chunk), (0, 1, 2)))
        return run.lower(x, x, x).compile().memory_analysis().temp_size_in_bytes / 2**20

    few, some, many = (needed(length, 256) for length in (2048, 4096, 8192))
    # All lengths need the memory of one tile.
    assert many - some == pytest.approx(2 * (some - few), rel=0.1)
    full = needed(8192, None)
    assert full > 3.8 * needed(4096, None)
    assert many < full / 100


@pytest.mark.parametrize("chunk", [0, -3])
def test_a_chunk_of_nothing_is_an_error(chunk):
    with pytest.raises(InputError, match="at least 1"):
        attention(*INPUTS, chunk=chunk)
