"""Losses of examples without labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.losses import pseudo_label, virtual_adversarial

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(4, 3)).astype(np.float32)
X, START = RNG.normal(size=(2, 5, 4)).astype(np.float32)


def logits_of(x):
    return x @ KERNEL


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def test_a_pseudo_label_is_the_likeliest_class_and_a_constant():
    logits = jnp.array([[1.0, 3.0, 0.0], [0.5, 0.0, 0.25]])
    p = softmax(np.asarray(logits))
    np.testing.assert_allclose(pseudo_label(logits), -np.log([p[0, 1], p[1, 0]]), rtol=1e-6)
    found = jax.grad(lambda x: pseudo_label(x).sum())(logits)
    np.testing.assert_allclose(found, p - np.eye(3)[[1, 0]], rtol=1e-5)


def divergence(x, r):
    p, q = softmax(x @ KERNEL), softmax((x + r) @ KERNEL)
    return (p * np.log(p / q)).sum(-1)


@pytest.mark.parametrize("radius", [0.01, pytest.param(2.0, marks=pytest.mark.slow)])
def test_the_change_is_along_the_first_eigenvector_of_the_hessian(radius):
    found = jax.jit(lambda: virtual_adversarial(logits_of, X, START, radius=radius, turns=100))()
    for x, value in zip(X.astype(np.float64), found, strict=True):
        # Of KL in a linear classifier: W (diag p - p p') W'.
        p = softmax(x @ KERNEL)
        _, vectors = np.linalg.eigh(KERNEL @ (np.diag(p) - np.outer(p, p)) @ KERNEL.T)
        ends = [divergence(x, sign * radius * vectors[:, -1]) for sign in (1, -1)]
        rest = min(abs(float(value) - end) for end in ends)
        assert rest < 2e-3 * max(ends) + 2e-7


def test_one_turn_is_worse_than_chance_and_has_a_gradient_where_the_target_is_constant():
    def loss(kernel):
        return virtual_adversarial(lambda x: x @ kernel, X, START, radius=1.0)

    value, gradient = jax.jit(lambda k: (loss(k), jax.grad(lambda k: loss(k).sum())(k)))(KERNEL)
    units = START / np.linalg.norm(START, axis=1, keepdims=True)
    assert (np.asarray(value) > divergence(X, units)).mean() > 0.5
    assert jnp.isfinite(gradient).all() and float(jnp.abs(gradient).max()) > 0
    flat = virtual_adversarial(lambda x: 0 * x @ KERNEL, X, START, radius=1.0)
    np.testing.assert_array_equal(flat, np.zeros(5))
