"""Pooling equals hand-worked numbers, NumPy, JAX's own gradient and finite differences."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import nn
from dlcore.errors import InputError
from dlcore.nn.windows import pad_sizes

# The sources' example: 4x4 values, 2x2 windows.
EXAMPLE = jnp.array(
    [[31.0, 15, 28, 184], [0, 100, 70, 38], [12, 12, 7, 2], [12, 12, 45, 6]]
).reshape(1, 4, 4, 1)

GEOMETRIES = [
    # sizes, window, stride, padding
    ((8, 6), 2, None, "valid"),
    ((7, 9), 2, None, "valid"),
    ((9, 8), 3, 2, "valid"),
    ((9, 8), 3, 2, "same"),
    ((6, 7), (3, 2), (1, 2), "full"),
    ((8, 8), 2, 3, "valid"),
    ((5, 6), 3, 1, ((1, 2), (0, 2))),
    ((9,), 3, 2, "same"),
    ((4, 5, 6), 2, 2, "same"),
]


def tied(shape, dtype=np.float32):
    """Draws halves of small whole numbers, so that most windows have several maxima."""
    return jnp.asarray(np.random.default_rng(0).integers(-3, 3, shape) / 2, dtype)


def geometry(sizes, window, stride, padding):
    window = tuple(np.broadcast_to(window, len(sizes)).tolist())
    stride = window if stride is None else tuple(np.broadcast_to(stride, len(sizes)).tolist())
    dilation = (1,) * len(sizes)
    pads = pad_sizes(sizes, window, stride=stride, padding=padding, dilation=dilation)
    return window, stride, pads


def windows_of(x, window, stride, pads, fill):
    """Yields each window of the padded x as (output position, values (B, F..., C))."""
    x = np.pad(np.asarray(x), ((0, 0), *pads, (0, 0)), constant_values=fill)
    starts = [range(0, i - f + 1, s) for i, f, s in zip(x.shape[1:-1], window, stride, strict=True)]
    for start in itertools.product(*starts):
        cut = tuple(slice(a, a + f) for a, f in zip(start, window, strict=True))
        position = tuple(a // s for a, s in zip(start, stride, strict=True))
        yield position, x[(slice(None), *cut)]


def test_the_sources_numbers():
    np.testing.assert_array_equal(nn.max_pool(EXAMPLE, 2).ravel(), [100, 184, 12, 45])
    # Their figure prints 36 for the first mean; it is 36.5.
    np.testing.assert_array_equal(nn.average_pool(EXAMPLE, 2).ravel(), [36.5, 80, 12, 15])
    assert nn.max_pool(jnp.zeros((1, 10, 10, 3)), 2).shape == (1, 5, 5, 3)


@pytest.mark.parametrize("sizes, window, stride, padding", GEOMETRIES)
def test_values(sizes, window, stride, padding):
    x = jax.random.normal(jax.random.key(0), (2, *sizes, 3))
    resolved = geometry(sizes, window, stride, padding)

    @jax.jit
    def pools(x):
        how = {"stride": stride, "padding": padding}
        mean = nn.average_pool(x, window, **how)
        inside = nn.average_pool(x, window, **how, count_include_padding=False)
        return nn.max_pool(x, window, **how), mean, inside

    largest, mean, inside = map(np.asarray, pools(x))
    axes = tuple(range(1, 1 + len(sizes)))
    for position, values in windows_of(x, *resolved, fill=np.nan):
        at = (slice(None), *position)
        np.testing.assert_array_equal(largest[at], np.nanmax(values, axes))
        zeros = np.nan_to_num(values)
        np.testing.assert_allclose(mean[at], zeros.mean(axes), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(inside[at], np.nanmean(values, axes), rtol=1e-5, atol=1e-6)
    assert largest.shape[1:-1] == tuple(p + 1 for p in position)


@pytest.mark.parametrize("sizes, window, stride, padding", GEOMETRIES)
def test_max_gradient_is_that_of_reduce_window(sizes, window, stride, padding):
    """The gradients are equal even at ties: the cotangents are whole, so no sum rounds."""
    x = tied((2, *sizes, 3))
    window_, stride_, pads = geometry(sizes, window, stride, padding)

    def plain(x):
        return jax.lax.reduce_window(
            x, -jnp.inf, jax.lax.max, (1, *window_, 1), (1, *stride_, 1), ((0, 0), *pads, (0, 0))
        )

    def ours(x):
        return nn.max_pool(x, window, stride=stride, padding=padding)

    g = np.random.default_rng(1).integers(-9, 9, jax.eval_shape(plain, x).shape)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_pulled_back(pool, x, g):
        y, vjp = jax.vjp(pool, x)
        return y, vjp(g)[0]

    found, expected = (value_and_pulled_back(pool, x, g.astype("f4")) for pool in (ours, plain))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_the_first_of_equal_maxima_gets_the_gradient():
    x = jnp.array([[1.0, 2.0], [2.0, 2.0]]).reshape(1, 2, 2, 1)
    gradient = jax.grad(lambda x: nn.max_pool(x, 2).sum())(x)
    np.testing.assert_array_equal(gradient.ravel(), [0, 1, 0, 0])


@pytest.mark.parametrize("sizes, window, stride, padding", GEOMETRIES[:6])
def test_max_gradient_is_the_slope(sizes, window, stride, padding):
    """It equals central differences at distinct values, so that no step crosses a kink."""
    with jax.enable_x64(True):
        shape = (1, *sizes, 2)
        x = jnp.asarray(np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape) / 10.0)
        direction = jnp.asarray(np.random.default_rng(1).normal(size=shape))

        @jax.jit
        def f(x):
            y = nn.max_pool(x, window, stride=stride, padding=padding)
            return (y * jnp.cos(jnp.arange(1.0, y.size + 1).reshape(y.shape))).sum()

        h = 1e-3
        slope = (f(x + h * direction) - f(x - h * direction)) / (2 * h)
        np.testing.assert_allclose((jax.jit(jax.grad(f))(x) * direction).sum(), slope, rtol=1e-8)


def test_max_under_jit_and_vmap():
    x = tied((3, 2, 9, 8, 3))

    def gradient(x):
        return jax.grad(lambda x: (nn.max_pool(x, 3, stride=2) ** 2).sum())(x)

    expected = np.stack([gradient(each) for each in x])
    np.testing.assert_array_equal(jax.jit(jax.vmap(gradient))(x), expected)


def test_half_precision():
    x = tied((1, 4, 4, 2), jnp.bfloat16)
    y, vjp = jax.vjp(lambda x: nn.max_pool(x, 2), x)
    assert y.dtype == vjp(y)[0].dtype == nn.average_pool(x, 2).dtype == jnp.bfloat16


@pytest.mark.parametrize("pool", [nn.max_pool, nn.average_pool])
def test_bad_input(pool):
    x = jnp.zeros((1, 3, 8, 1))
    with pytest.raises(InputError, match="size 3 is too small for a window of 4.*size is 4:"):
        pool(x, 4)
    with pytest.raises(ValueError, match=r"padding \(2, 0\) must be smaller than the window of 2"):
        pool(x, 2, padding=((0, 0), (2, 0)))
    with pytest.raises(ValueError, match=r"window \(2, 2, 2\) is not 2 positive numbers"):
        pool(x, (2, 2, 2))


def test_space_to_depth_is_plain_loops():
    """Odd sides are filled up with zeros."""
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    found = np.asarray(nn.space_to_depth(jnp.asarray(x), 2))
    assert found.shape == (2, 3, 2, 12)
    for i, j, c in itertools.product(range(6), range(4), range(3)):
        value = x[:, i, j, c] if i < 5 else 0
        place = (i % 2) * 2 + j % 2
        np.testing.assert_array_equal(found[:, i // 2, j // 2, 3 * place + c], value)
