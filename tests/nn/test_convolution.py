"""The gradients of convolutions equal those that JAX derives, alone, in loops and past NaN."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dlcore import nn
from dlcore.errors import InputError
from dlcore.nn import onednn
from dlcore.nn.convolution import Windows, convolve

AXES = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}


def arrays(sizes, window, windows, channels=3, filters=5, batch=2):
    """Draws x, a kernel, and a gradient of the output."""
    rng = np.random.default_rng(0)
    x, kernel = (
        jnp.asarray(rng.normal(size=shape), jnp.float32)
        for shape in ((batch, *sizes, channels), (*window, channels, filters))
    )
    y = jax.eval_shape(lambda x, kernel: convolve(x, kernel, windows), x, kernel)
    return x, kernel, jnp.asarray(rng.normal(size=y.shape), jnp.float32)


def derived(x, kernel, windows):
    return lax.conv_general_dilated(
        x,
        kernel,
        windows.strides,
        windows.pads,
        rhs_dilation=windows.dilation,
        dimension_numbers=AXES[x.ndim - 2],
    )


def gradients(function, windows, x, kernel, g):
    y, pull_back = jax.vjp(lambda x, kernel: function(x, kernel, windows), x, kernel)
    return y, *pull_back(g)


def assert_gradients_equal(windows, given):
    """Compares the derivatives of ours with JAX's, each compiled as one program."""
    found, expected = (
        jax.jit(functools.partial(gradients, function, windows))(*given)
        for function in (convolve, derived)
    )
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-5, atol=1e-5)


PLACES = list(itertools.product((7, 8), (1, 4), (1, 3), ((0, 0), (1, 2), (2, 0)), (1, 2)))


@pytest.mark.parametrize(
    "size, window, stride, pads, dilation",
    [
        pytest.param(*place, marks=[pytest.mark.slow] * (number % 3 != 0))
        for number, place in enumerate(PLACES)
    ],
)
def test_gradients_in_one_dimension(size, window, stride, pads, dilation):
    """Gradients are right with pixels that no window reaches and pads as wide as the window."""
    windows = Windows((stride,), (pads,), (dilation,))
    assert_gradients_equal(windows, arrays((size,), (window,), windows))


@pytest.mark.parametrize(
    "sizes, window, windows",
    [
        ((6, 7), (3, 3), Windows((1, 1), ((1, 1), (1, 1)), (1, 1))),
        ((6, 7), (1, 1), Windows((1, 1), ((0, 0), (0, 0)), (1, 1))),
        ((7, 8), (3, 2), Windows((2, 1), ((1, 1), (0, 1)), (1, 2))),
        ((4, 5, 6), (3, 2, 1), Windows((2, 1, 3), ((1, 1), (0, 0), (0, 2)), (1, 2, 1))),
    ],
)
def test_gradients_in_more_dimensions(sizes, window, windows):
    assert_gradients_equal(windows, arrays(sizes, window, windows))


def test_gradients_in_a_loop():
    windows = Windows((1, 1), ((1, 1), (1, 1)), (1, 1))
    x, _, g = arrays((5, 5), (3, 3), windows, filters=3)
    kernels = jax.random.normal(jax.random.key(0), (4, 3, 3, 3, 3))

    def deep(function, kernels):
        y, _ = lax.scan(
            lambda y, kernel: (jnp.tanh(function(y, kernel, windows)), None), x, kernels
        )
        return jnp.vdot(y, g)

    found, expected = (
        jax.jit(jax.grad(lambda k, f=f: deep(f, k)))(kernels) for f in (convolve, derived)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_second_derivatives():
    """Backward over backward (gradient penalty) and forward over backward (Hessian) work."""
    windows = Windows((2, 2), ((1, 0), (1, 0)), (1, 1))
    x, kernel, g = arrays((5, 5), (3, 3), windows)

    def penalty(function, kernel):
        slope = jax.grad(lambda x: jnp.vdot(jnp.tanh(function(x, kernel, windows)), g))
        return jnp.sum(slope(x) ** 2)

    def curvature(function):
        slope = jax.grad(lambda k: jnp.sum(jnp.tanh(function(x, k, windows)) ** 2))
        return jax.jvp(slope, (kernel,), (jnp.ones_like(kernel),))[1]

    for compute in (lambda f: jax.grad(lambda k: penalty(f, k))(kernel), curvature):
        found, expected = (jax.jit(functools.partial(compute, f))() for f in (convolve, derived))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_layer_with_groups_or_without(groups):
    """The layer passes on its stride, pads, dilation and groups."""
    x = jax.random.normal(jax.random.key(0), (2, 9, 8, 4))
    conv = nn.Conv(
        6,
        (3, 2),
        stride=(2, 1),
        padding=((1, 0), (0, 1)),
        dilation=(1, 2),
        groups=groups,
        use_bias=False,
    )
    params = jax.jit(conv.init)(jax.random.key(0), x)["params"]

    def expected(params):
        y = lax.conv_general_dilated(
            x,
            params["kernel"],
            (2, 1),
            ((1, 0), (0, 1)),
            rhs_dilation=(1, 2),
            feature_group_count=groups,
            dimension_numbers=AXES[2],
        )
        return jnp.sum(jnp.tanh(y))

    def ours(params):
        return jnp.sum(jnp.tanh(conv.apply({"params": params}, x)))

    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-5, atol=1e-5),
        *(jax.jit(jax.grad(function))(params) for function in (ours, expected)),
    )


def test_nan_is_not_hidden():
    windows = Windows((1,), ((1, 1),), (1,))
    x, kernel, g = arrays((6,), (3,), windows)
    for at, spoilt in enumerate((x, kernel, g)):
        given = [x, kernel, g]
        given[at] = spoilt.at[(0,) * spoilt.ndim].set(jnp.nan)
        found = jax.jit(lambda *given: gradients(convolve, windows, *given))(*given)
        assert any(bool(jnp.isnan(f).any()) for f in found[1:])


def test_each_example_has_its_gradient():
    """This holds under `vmap`, also with a kernel for each example."""
    windows = Windows((1,), ((1, 1),), (1,))
    x, kernel, g = arrays((6,), (3,), windows)
    kernels = jnp.stack([kernel, -2 * kernel])
    found = jax.vmap(lambda x, k, g: gradients(convolve, windows, x[None], k, g[None]))(
        x, kernels, g
    )
    for i in range(2):
        one = gradients(derived, windows, x[i : i + 1], kernels[i], g[i : i + 1])
        for f, e in zip(found, one, strict=True):
            np.testing.assert_allclose(f[i], e, rtol=1e-5, atol=1e-5)


def scattered(x, kernel, stride, start, sizes):
    """Adds each input's multiple of the kernel to its window of the output, in plain loops."""
    batch, height, width, _ = x.shape
    y = np.zeros((batch, *sizes, kernel.shape[-1]))
    for b, i, j in np.ndindex(batch, height, width):
        for f, g in np.ndindex(kernel.shape[:2]):
            row, column = i * stride[0] + f - start[0], j * stride[1] + g - start[1]
            if 0 <= row < sizes[0] and 0 <= column < sizes[1]:
                y[b, row, column] += x[b, i, j] @ kernel[f, g]
    return y


TRANSPOSED = [  # input, window, stride, padding, given size; the size and where the output starts
    ((3, 4), (3, 2), (1, 1), "valid", None, (5, 5), (0, 0)),
    ((3, 4), (2, 3), (3, 2), "valid", None, (8, 9), (0, 0)),
    ((3, 4), (4, 3), (2, 2), "same", None, (6, 8), (1, 0)),
    ((3, 4), (4, 3), (2, 2), "same", (5, 7), (5, 7), (1, 1)),
    ((5, 6), (3, 2), (1, 1), "full", None, (3, 5), (2, 1)),
    ((3, 4), (3, 3), (2, 3), ((1, 0), (0, 2)), (7, 12), (7, 12), (1, 0)),
]


@pytest.mark.parametrize("sizes, window, stride, padding, given, size, start", TRANSPOSED)
def test_a_transposed_layer_scatters(sizes, window, stride, padding, given, size, start):
    x = jax.random.normal(jax.random.key(0), (2, *sizes, 3))
    layer = nn.ConvTranspose(5, window, stride=stride, padding=padding, output_size=given)
    params = jax.jit(layer.init)(jax.random.key(1), x)["params"]
    params["bias"] = jnp.arange(5.0)
    y = layer.apply({"params": params}, x)
    expected = scattered(np.asarray(x), np.asarray(params["kernel"]), stride, start, size)
    np.testing.assert_allclose(y, expected + np.arange(5.0), rtol=1e-5, atol=1e-5)
    del params["bias"]
    plain = layer.clone(use_bias=False).apply({"params": params}, x)
    np.testing.assert_allclose(plain, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes, window, stride, padding, given, size, start", TRANSPOSED)
def test_a_transposed_layer_is_the_gradient_of_a_convolution(
    sizes, window, stride, padding, given, size, start
):
    del start
    x = jax.random.normal(jax.random.key(0), (2, *sizes, 3))
    layer = nn.ConvTranspose(5, window, stride=stride, padding=padding, output_size=given)
    params = jax.jit(layer.init)(jax.random.key(1), x)["params"]
    conv = nn.Conv(3, window, stride=stride, padding=padding, use_bias=False)
    kernel = params["kernel"].swapaxes(-1, -2)

    def transposed(x, kernel):
        back = jax.vjp(lambda y: conv.apply({"params": {"kernel": kernel}}, y), zeros)[1]
        return back(x)[0]

    def ours(x, kernel):
        return layer.apply({"params": params | {"kernel": kernel}}, x)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(function, x, kernel, g):
        y, pull_back = jax.vjp(function, x, kernel)
        return y, *pull_back(g)

    zeros = np.zeros((2, *size, 5), np.float32)
    g = jax.random.normal(jax.random.key(2), zeros.shape)
    y, dx, dk = value_and_gradients(ours, x, params["kernel"], g)
    expected, dx_expected, dk_expected = value_and_gradients(transposed, x, kernel, g)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx, dx_expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dk, dk_expected.swapaxes(-1, -2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"output_size": (9,)}, {"padding": ((3, 3),)}, {"output_size": (1,), "stride": 1}]
)
def test_sizes_that_no_convolution_leads_back_to_are_refused(options):
    layer = nn.ConvTranspose(1, (3,), **{"stride": 2, **options})
    with pytest.raises(InputError, match="no convolution with a window of 3, stride"):
        layer.init(jax.random.key(0), jnp.zeros((1, 2, 1)))


@pytest.fixture
def one_device(monkeypatch):
    """The suite runs on several virtual devices; these tests use one of them."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


needs_onednn = pytest.mark.skipif(not onednn.available(), reason="needs the extra onednn")


@needs_onednn
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(
    "sizes, window, windows",
    [
        ((9,), (4,), Windows((2,), ((1, 2),), (1,))),
        ((6, 7), (3, 3), Windows((1, 1), ((1, 1), (1, 1)), (1, 1))),
        ((7, 8), (3, 2), Windows((2, 1), ((1, 1), (0, 1)), (1, 2))),
        ((4, 5, 6), (3, 2, 1), Windows((2, 1, 3), ((1, 1), (0, 0), (0, 0)), (1, 2, 1))),
    ],
)
def test_onednn_equals_xla(one_device, sizes, window, windows, batch):
    given = arrays(sizes, window, windows, batch=batch)
    assert onednn.takes(*given[:2], *windows)
    found = jax.jit(lambda *given: gradients(convolve, windows, *given))(*given)
    for f, e in zip(found, gradients(derived, windows, *given), strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-5, atol=1e-5)


@needs_onednn
def test_second_derivatives_of_onednn(one_device):
    """The gradient of a gradient is that of XLA's convolutions."""
    test_second_derivatives()


@needs_onednn
def test_onednn_under_vmap(one_device):
    windows = Windows((1, 1), ((1, 1), (1, 1)), (1, 1))
    x, kernel, _ = arrays((6, 7), (3, 3), windows)
    kernels = jnp.stack([kernel, 2 * kernel])
    found = jax.vmap(lambda kernel: convolve(x, kernel, windows))(kernels)
    expected = jnp.stack([derived(x, kernel, windows) for kernel in kernels])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_what_onednn_leaves_to_xla():
    """Other types, empty batches and pads as wide as the window go by XLA wherever oneDNN is."""
    x, kernel = jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 3, 4))
    strides, pads, dilation = (1, 1), ((1, 1), (1, 1)), (1, 1)
    half = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    assert not onednn.takes(*half, strides, pads, dilation)
    assert not onednn.takes(x[:0], kernel, strides, pads, dilation)
    assert not onednn.takes(x, kernel, strides, ((3, 1), (1, 1)), dilation)
    assert not onednn.takes(x, kernel, strides, ((1, -1), (1, 1)), dilation)
