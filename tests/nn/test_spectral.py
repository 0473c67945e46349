"""Spectral normalisation against singular values and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.nn import Conv, Dense, SpectralNorm

LAYERS = {
    "dense": (lambda: Dense(5, bias_init=jax.nn.initializers.ones), (3, 7)),
    "conv": (lambda: Conv(4, (3, 3), stride=2, padding="same"), (2, 6, 6, 2)),
}


def made(kind):
    make, shape = LAYERS[kind]
    layer = SpectralNorm(make())
    x = jax.random.normal(jax.random.key(1), shape)
    return layer, x, jax.jit(layer.init)(jax.random.key(0), x)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "dense")) for kind in LAYERS]
)
def test_many_calls_divide_by_the_largest_singular_value(kind):
    layer, x, variables = made(kind)
    params, state = variables["params"], {"spectral": variables["spectral"]}
    kernel = np.asarray(params["layer"]["kernel"])
    sigma = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
    train = jax.jit(
        lambda state: layer.apply({"params": params, **state}, x, train=True, mutable=["spectral"])
    )
    for _ in range(200):
        y, state = train(state)
    exact = {"kernel": kernel / sigma, "bias": params["layer"]["bias"]}
    expected = LAYERS[kind][0]().apply({"params": exact}, x)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    again = jax.jit(layer.apply)({"params": params, **state}, x)
    np.testing.assert_allclose(again, expected, rtol=1e-4, atol=1e-5)


def test_an_evaluation_and_the_first_variables_leave_the_vector_alone():
    layer, x, variables = made("dense")
    _, state = layer.apply(variables, x, mutable=["spectral"])
    np.testing.assert_array_equal(state["spectral"]["u"], variables["spectral"]["u"])
    _, state = layer.apply(variables, x, train=True, mutable=["spectral"])
    assert not np.array_equal(state["spectral"]["u"], variables["spectral"]["u"])
    assert np.linalg.norm(state["spectral"]["u"]) == pytest.approx(1)


def test_three_steps_and_their_gradients_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    layer, x, variables = made("dense")
    params, state = variables["params"], {"spectral": variables["spectral"]}
    linear = torch.nn.Linear(7, 5)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(np.array(params["layer"]["kernel"]).T))
        linear.bias.fill_(1)
    theirs = torch.nn.utils.spectral_norm(linear, eps=1e-12)
    theirs.weight_u.copy_(torch.from_numpy(np.array(state["spectral"]["u"])))

    def loss(params, state):
        y, state = layer.apply({"params": params, **state}, x, train=True, mutable=["spectral"])
        return jnp.sin(y).sum(), state

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for _ in range(3):
        (value, state), gradients = step(params, state)
        theirs.zero_grad()
        expected = torch.sin(theirs(torch.from_numpy(np.array(x)))).sum()
        expected.backward()
    assert float(value) == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(
        gradients["layer"]["kernel"], theirs.weight_orig.grad.T, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(state["spectral"]["u"], theirs.weight_u, rtol=1e-5, atol=1e-6)
