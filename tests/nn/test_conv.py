"""Convolution equals explicit loops and SciPy; the arithmetic of its sizes is right."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from dlcore import nn
from dlcore.errors import InputError
from dlcore.nn.windows import pad_sizes

SWEEP = list(itertools.product(range(1, 21), range(1, 8), range(1, 5)))


def explicit(x, kernel, stride, pads, dilation, groups):
    """Computes the convolution by its definition, one output number at a time."""
    window, (k, n) = kernel.shape[:-2], (kernel.shape[-1], kernel.ndim - 2)
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    covered = [d * (f - 1) + 1 for d, f in zip(dilation, window, strict=True)]
    out = [(i - c) // s + 1 for i, c, s in zip(x.shape[1:-1], covered, stride, strict=True)]
    per_group = x.shape[-1] // groups
    y = np.zeros((x.shape[0], *out, k))
    for position in itertools.product(*map(range, out)):
        for place in itertools.product(*map(range, window)):
            at = tuple(position[i] * stride[i] + place[i] * dilation[i] for i in range(n))
            for filter_ in range(k):
                first = filter_ * groups // k * per_group
                seen = x[(slice(None), *at, slice(first, first + per_group))]
                y[(slice(None), *position, filter_)] += (
                    seen @ kernel[(*place, slice(None), filter_)]
                )
    return y


@pytest.mark.parametrize(
    "sizes, window, stride, padding, dilation, groups",
    [
        pytest.param((7,), (3,), 1, "full", 1, 1, marks=pytest.mark.slow),
        ((8,), (2,), 3, "same", 2, 2),
        ((6, 5), (3, 2), 1, "valid", 1, 1),
        ((6, 5), (3, 2), (2, 1), "same", 1, 2),
        ((6, 7), (2, 3), 1, "full", (1, 2), 1),
        ((5, 5), (2, 2), 2, ((0, 2), (3, 1)), 1, 4),
        pytest.param((7, 7), (1, 1), 3, "same", 1, 1, marks=pytest.mark.slow),
        ((4, 3, 5), (2, 2, 3), (1, 1, 2), "same", 1, 2),
    ],
)
def test_equals_explicit_loops(sizes, window, stride, padding, dilation, groups):
    x = jax.random.normal(jax.random.key(0), (2, *sizes, 4))
    conv = nn.Conv(
        8,
        window,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias_init=jax.nn.initializers.normal(),
    )
    y, variables = conv.init_with_output(jax.random.key(1), x)
    kernel, bias = (np.asarray(variables["params"][name]) for name in ("kernel", "bias"))
    strides, dilations = np.broadcast_to(stride, len(sizes)), np.broadcast_to(dilation, len(sizes))
    pads = pad_sizes(sizes, window, stride=strides, padding=padding, dilation=dilations)
    expected = explicit(np.asarray(x), kernel, strides, pads, dilations, groups) + bias
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    # The source's count: (F F C + 1) K, with C / G channels per filter.
    count = (math.prod(window) * 4 // groups + 1) * 8
    assert sum(p.size for p in jax.tree.leaves(variables)) == count


@pytest.mark.parametrize("padding", ["valid", "same", "full"])
@pytest.mark.parametrize("sizes, window", [((9,), (3,)), ((7, 6), (3, 5)), ((4, 5, 6), (1, 3, 3))])
def test_equals_scipy(padding, sizes, window):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=sizes), rng.normal(size=window)
    conv = nn.Conv(1, window, padding=padding, use_bias=False)
    params = {"kernel": jnp.asarray(kernel[..., None, None], jnp.float32)}
    y = conv.apply({"params": params}, jnp.asarray(x[None, ..., None], jnp.float32))
    expected = scipy.signal.correlate(x, kernel, padding, method="direct")
    np.testing.assert_allclose(y[0, ..., 0], expected, rtol=1e-4, atol=1e-5)


def test_full_of_a_mirrored_kernel_is_the_convolution_of_mathematics():
    x, kernel = np.arange(1.0, 6), np.array([1.0, -2, 0.5])
    conv = nn.Conv(1, (3,), padding="full", use_bias=False)
    params = {"kernel": jnp.asarray(kernel[::-1, None, None], jnp.float32)}
    y = conv.apply({"params": params}, jnp.asarray(x[None, :, None], jnp.float32))
    np.testing.assert_allclose(y[0, :, 0], np.convolve(x, kernel, mode="full"), rtol=1e-6)


def test_1x1_is_dense_for_each_pixel():
    x = jax.random.normal(jax.random.key(0), (2, 4, 3, 5))
    y, variables = nn.Conv(7, (1, 1)).init_with_output(jax.random.key(1), x)
    params = variables["params"]
    dense = nn.Dense(7).apply({"params": params | {"kernel": params["kernel"][0, 0]}}, x)
    np.testing.assert_allclose(y, dense, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dilation", [1, 2])
def test_sizes_of_all_paddings(dilation):
    """Sizes equal lax and the closed formulas for every I <= 20, F <= 7, S <= 4."""
    for i, f, s in SWEEP:
        covered = dilation * (f - 1) + 1
        window = {"stride": s, "dilation": dilation}
        arguments = {"stride": (s,), "dilation": (dilation,)}
        (same,) = pad_sizes((i,), (f,), padding="same", **arguments)
        assert same == jax.lax.padtype_to_pads((i,), (covered,), (s,), "SAME")[0]
        assert nn.output_size(i, f, padding="same", **window) == math.ceil(i / s)
        full = nn.output_size(i, f, padding="full", **window)
        assert full == math.floor((i + covered - 2) / s) + 1
        if covered <= i:
            windows = [o for o in range(0, i, s) if o + covered <= i]
            assert nn.output_size(i, f, **window) == len(windows)
            pads = len([o for o in range(-2, i + 1, s) if o + covered <= i + 1])
            assert nn.output_size(i, f, padding=(2, 1), **window) == pads
        else:
            with pytest.raises(InputError, match=f"the smallest size is {covered}:"):
                nn.output_size(i, f, **window)


def test_same_never_pads_a_negative_amount():
    """At I=4, F=1, S=2 the unclamped formula would give -1."""
    assert pad_sizes((4,), (1,), stride=(2,), padding="same", dilation=(1,)) == ((0, 0),)


@pytest.mark.parametrize("padding", ["valid", "same", "full", ((1, 0), (0, 2))])
def test_output_size_is_the_size_of_the_convolution(padding):
    for (i, f, s), d in itertools.product([(6, 3, 2), (5, 2, 1), (7, 1, 3), (9, 4, 4)], [1, 2]):
        conv = nn.Conv(1, (f, f), stride=s, padding=padding, dilation=d)
        shape = jax.eval_shape(conv.init_with_output, jax.random.key(0), jnp.ones((1, i, i, 1)))[0]
        for axis in range(2):
            each = padding if isinstance(padding, str) else padding[axis]
            size = nn.output_size(i, f, stride=s, padding=each, dilation=d)
            assert shape.shape[1 + axis] == size


def test_too_small_an_input_names_the_smallest():
    with pytest.raises(InputError, match="size 4 is too small for a window of 3.*size is 5:"):
        nn.Conv(1, (3, 3), dilation=2).init(jax.random.key(0), jnp.ones((1, 4, 9, 1)))


def test_unknown_padding():
    with pytest.raises(InputError, match="unknown padding 'smae'; choose one of: full, same, val"):
        nn.Conv(1, (3, 3), padding="smae").init(jax.random.key(0), jnp.ones((1, 4, 4, 1)))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"groups": 2}, "2 groups do not divide 3 channels"),
        ({"stride": (1, 2, 3)}, r"stride \(1, 2, 3\) is not 2 positive numbers"),
        ({"stride": 0}, "stride 0 is not 2 positive numbers"),
        ({"padding": ((1, 1),)}, "is not 2 pairs"),
    ],
)
def test_wrong_shapes(options, message):
    with pytest.raises(ValueError, match=message):
        nn.Conv(4, (2, 2), **options).init(jax.random.key(0), jnp.ones((1, 4, 4, 3)))


def test_wrong_rank():
    with pytest.raises(ValueError, match=r"a 2-d convolution needs 4 axes.*got \(4, 4, 3\)"):
        nn.Conv(4, (2, 2)).init(jax.random.key(0), jnp.ones((4, 4, 3)))
