"""Local response normalisation equals its formula, PyTorch and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.nn.local_response import local_response_norm

X = 30 * jax.random.normal(jax.random.key(0), (2, 3, 4, 7))
CASES = [
    # size, alpha, beta, k
    (5, 1e-4, 0.75, 2.0),
    (3, 1e-2, 0.5, 1.0),
    (1, 1e-3, 0.75, 1.0),
    (15, 1e-3, 1.25, 0.5),
]


def plain(x, size=5, alpha=1e-4, beta=0.75, k=2.0):
    """Computes the paper's formula, value by value, in float64."""
    x = np.asarray(x, np.float64)
    y = np.empty_like(x)
    last = x.shape[-1] - 1
    for place in np.ndindex(x.shape):
        *pixel, channel = place
        neighbours = range(max(0, channel - size // 2), min(last, channel + size // 2) + 1)
        total = sum(x[(*pixel, j)] ** 2 for j in neighbours)
        y[place] = x[place] / (k + alpha * total) ** beta
    return y


def test_by_hand():
    """Three channels: the middle one sees 100^2 + 200^2 + 0, each outer one as much at size 5."""
    y = local_response_norm(jnp.array([[100.0, 0.0, 200.0]]))
    np.testing.assert_allclose(y, np.array([[100, 0, 200]]) / (2 + 1e-4 * 50_000) ** 0.75, 1e-6)


@pytest.mark.parametrize("size, alpha, beta, k", CASES)
def test_values(size, alpha, beta, k):
    y = local_response_norm(X, size=size, alpha=alpha, beta=beta, k=k)
    np.testing.assert_allclose(y, plain(X, size, alpha, beta, k), rtol=2e-6)


def test_the_paper_s_constants_are_the_defaults():
    np.testing.assert_allclose(local_response_norm(X), plain(X), rtol=2e-6)


@pytest.mark.parametrize("size, alpha, beta, k", CASES)
def test_values_and_gradient_are_pytorch_s(size, alpha, beta, k):
    """PyTorch divides alpha by the size."""
    torch = pytest.importorskip("torch")
    layer = torch.nn.LocalResponseNorm(size, alpha * size, beta, k)
    x = torch.tensor(np.moveaxis(np.asarray(X), -1, 1), requires_grad=True)
    expected = layer(x)
    y, vjp = jax.vjp(lambda x: local_response_norm(x, size=size, alpha=alpha, beta=beta, k=k), X)
    np.testing.assert_allclose(y, np.moveaxis(expected.detach().numpy(), 1, -1), rtol=2e-6)
    g = jax.random.normal(jax.random.key(1), X.shape)
    expected.backward(torch.tensor(np.moveaxis(np.asarray(g), -1, 1)))
    slope = np.moveaxis(x.grad.numpy(), 1, -1)
    np.testing.assert_allclose(vjp(g)[0], slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size, alpha, beta, k", CASES)
def test_gradient_is_the_slope(size, alpha, beta, k):
    """Central differences in float64."""
    with jax.enable_x64(True):
        x = jnp.asarray(X, jnp.float64)
        direction = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))

        @jax.jit
        def f(x):
            y = local_response_norm(x, size=size, alpha=alpha, beta=beta, k=k)
            return (y * jnp.cos(jnp.arange(1.0, y.size + 1).reshape(y.shape))).sum()

        h = 1e-3
        slope = (f(x + h * direction) - f(x - h * direction)) / (2 * h)
        np.testing.assert_allclose((jax.grad(f)(x) * direction).sum(), slope, rtol=1e-7)


def test_half_precision_sums_in_single():
    x = X.astype(jnp.bfloat16)
    y = local_response_norm(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), plain(x.astype(jnp.float32)), rtol=2**-8)


@pytest.mark.parametrize("size", [0, 4, -1])
def test_a_size_without_a_middle_is_refused(size):
    with pytest.raises(ValueError, match=f"{size} channels have no middle one"):
        local_response_norm(X, size=size)
