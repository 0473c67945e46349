"""Costs of style transfer, against their equations written plainly in NumPy, and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.losses import CONTENT_COSTS, gram_matrix, style_cost

RNG = np.random.default_rng(0)
H, W, N = 5, 7, 4
FOUND, WANTED = (RNG.normal(size=(1, H, W, N)).astype(np.float32) for _ in range(2))


def gatys_gram(activations):
    """Equation 3, place by place."""
    gram = np.zeros((N, N))
    for row in activations[0]:
        for place in row:
            gram += np.outer(place, place)
    return gram


def test_content_costs_are_those_of_gatys_and_of_ng():
    squares = ((FOUND - WANTED).astype(np.float64) ** 2).sum()
    for name, factor in {"gatys": 1 / 2, "ng": 1 / (4 * H * W * N)}.items():
        cost = jax.jit(CONTENT_COSTS[name])(FOUND, WANTED)
        np.testing.assert_allclose(cost, [factor * squares], rtol=1e-5)
        assert CONTENT_COSTS[name](FOUND, FOUND)[0] == 0


def test_style_cost_is_that_of_gatys_and_of_ng():
    difference = ((gatys_gram(FOUND) - gatys_gram(WANTED)) ** 2).sum()
    cost = jax.jit(lambda a, b: style_cost(gram_matrix(a), gram_matrix(b)))(FOUND, WANTED)
    np.testing.assert_allclose(cost, [difference / (4 * N**2 * (H * W) ** 2)], rtol=1e-5)
    np.testing.assert_allclose(cost, [difference / (2 * H * W * N) ** 2], rtol=1e-5)


def test_style_matrices_do_not_know_where_things_are_nor_how_large_the_picture_is():
    gram = gram_matrix(jnp.asarray(FOUND))
    shuffled = RNG.permutation(FOUND.reshape(-1, N)).reshape(1, W, H, N)
    np.testing.assert_allclose(gram_matrix(jnp.asarray(shuffled)), gram, rtol=1e-5, atol=1e-6)
    larger = np.tile(FOUND, (1, 2, 3, 1))
    np.testing.assert_allclose(gram_matrix(jnp.asarray(larger)), gram, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gram, jnp.swapaxes(gram, 1, 2))
    assert np.linalg.eigvalsh(gram).min() > 0


def test_masked_style_matrices_are_those_of_the_white_places():
    mask = np.zeros((H, W), np.float32)
    mask[:2, 1:4] = 1
    expected = gram_matrix(jnp.asarray(FOUND[:, :2, 1:4]))
    found = jax.jit(gram_matrix)(FOUND, mask)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not np.asarray(gram_matrix(jnp.asarray(FOUND), jnp.zeros((H, W)))).any()


def test_costs_and_gradients_are_those_of_pytorch():
    torch = pytest.importorskip("torch")

    def ours(x):
        content = CONTENT_COSTS["gatys"](x, WANTED)
        return (content + style_cost(gram_matrix(x), gram_matrix(jnp.asarray(WANTED))))[0]

    value, gradient = jax.jit(jax.value_and_grad(ours))(FOUND)
    x = torch.from_numpy(FOUND.transpose(0, 3, 1, 2).copy()).requires_grad_()
    y = torch.from_numpy(WANTED.transpose(0, 3, 1, 2).copy())
    grams = [flat @ flat.T for flat in (x.reshape(N, -1), y.reshape(N, -1))]
    cost = 0.5 * ((x - y) ** 2).sum()
    cost = cost + ((grams[0] - grams[1]) ** 2).sum() / (4 * N**2 * (H * W) ** 2)
    cost.backward()
    np.testing.assert_allclose(value, cost.item(), rtol=1e-5)
    expected = x.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)
