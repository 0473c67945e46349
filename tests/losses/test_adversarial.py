"""Losses of generators and discriminators against NumPy and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.losses import ADVERSARIAL, gradient_penalty, r1_penalty

RNG = np.random.default_rng(0)
REAL, DRAWN = RNG.normal(size=(2, 9)).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


EXPECTED = {
    "minimax": (-np.log(sigmoid(REAL)) - np.log(1 - sigmoid(DRAWN)), np.log(1 - sigmoid(DRAWN))),
    "non_saturating": (
        -np.log(sigmoid(REAL)) - np.log(1 - sigmoid(DRAWN)),
        -np.log(sigmoid(DRAWN)),
    ),
    "least_squares": (0.5 * (REAL - 1) ** 2 + 0.5 * DRAWN**2, 0.5 * (DRAWN - 1) ** 2),
    "wasserstein": (DRAWN - REAL, -DRAWN),
    "hinge": (np.maximum(0, 1 - REAL) + np.maximum(0, 1 + DRAWN), -DRAWN),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_each_pair_is_that_of_its_paper(name):
    pair, (discriminator, generator) = ADVERSARIAL[name], EXPECTED[name]
    np.testing.assert_allclose(pair.discriminator(REAL, DRAWN), discriminator, rtol=1e-5)
    np.testing.assert_allclose(pair.generator(DRAWN), generator, rtol=1e-5)
    sure = float(pair.discriminator(jnp.array([60.0]), jnp.array([-60.0]))[0])
    if pair.won is not None and name != "least_squares":
        assert sure == pytest.approx(pair.won, abs=1e-6)


def test_logits_beyond_the_exponential_stay_finite():
    big = jnp.array([1e4, -1e4])
    for pair in ADVERSARIAL.values():
        assert jnp.isfinite(pair.discriminator(big, -big)).all()
        assert jnp.isfinite(pair.generator(big)).all()


@pytest.mark.parametrize("name", ["minimax", "non_saturating"])
def test_between_equal_distributions_the_best_discriminator_has_log_4(name):
    # Logits for each of five places, learned until nothing changes: log p / q = 0 everywhere.
    shares = jnp.array([0.1, 0.4, 0.2, 0.2, 0.1])

    def loss(logits, drawn):
        losses = ADVERSARIAL[name].discriminator(logits[:, None], logits[None])
        return (shares[:, None] * drawn[None] * losses).sum()

    def learned(drawn):
        logits = jnp.array([2.0, -1.0, 0.5, 3.0, -2.0])
        step = jax.jit(lambda x: x - 4 * jax.grad(loss)(x, drawn))
        for _ in range(400):
            logits = step(logits)
        return logits

    assert float(loss(learned(shares), shares)) == pytest.approx(np.log(4), abs=1e-5)
    others = shares[::-1] * jnp.array([1, 0.5, 1, 1.25, 1])
    others = others / others.sum()
    np.testing.assert_allclose(learned(others), np.log(shares / others), atol=1e-3)


def network(x, weights, library):
    return (library.tanh(x.reshape(len(x), -1) @ weights[0]) @ weights[1])[:, 0]


def test_penalties_and_their_gradients_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    weights = [RNG.normal(size=s).astype(np.float32) for s in ((6, 5), (5, 1))]
    real, drawn = RNG.normal(size=(2, 4, 2, 3)).astype(np.float32)
    share = RNG.uniform(size=4).astype(np.float32)

    @jax.jit
    def ours(weights):
        def score(x):
            return network(x, weights, jnp)

        return jnp.stack([gradient_penalty(score, real, drawn, share), r1_penalty(score, real)])

    theirs = [torch.from_numpy(w).requires_grad_() for w in weights]
    part = torch.from_numpy(share).reshape(-1, 1, 1)
    between = part * torch.from_numpy(real) + (1 - part) * torch.from_numpy(drawn)
    norms = []
    for x in (between, torch.from_numpy(real)):
        x = x.clone().requires_grad_()
        score = network(x, theirs, torch)
        (gradient,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        norms.append(gradient.flatten(1).norm(dim=1))
    expected = torch.stack([(norms[0] - 1) ** 2, norms[1] ** 2 / 2])
    np.testing.assert_allclose(ours(weights), expected.detach(), rtol=1e-5)
    expected.sum().backward()
    for found, weight in zip(jax.grad(lambda w: ours(w).sum())(weights), theirs, strict=True):
        np.testing.assert_allclose(found, weight.grad, rtol=1e-4, atol=1e-5)


def test_a_network_that_is_constant_has_a_finite_penalty_and_gradient():
    x = jnp.ones((3, 2))

    def penalty(weight):
        return gradient_penalty(lambda x: x @ weight, x, -x, jnp.full(3, 0.5)).sum()

    value, gradient = jax.value_and_grad(penalty)(jnp.zeros(2))
    assert float(value) == 3.0 and jnp.isfinite(gradient).all()
