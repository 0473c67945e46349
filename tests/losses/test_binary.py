"""Binary cross-entropy against its formula in float64, and PyTorch where it is installed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.losses import binary_cross_entropy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype(np.float32) * 3
LABELS = RNG.choice([0, 0.3, 1], (6, 4)).astype(np.float32)
POSITIVE = np.array([1, 0.5, 4, 20], np.float32)


@pytest.mark.parametrize("weights", [None, POSITIVE])
def test_the_formula(weights):
    x, y = LOGITS.astype(np.float64), LABELS.astype(np.float64)
    p = 1 / (1 + np.exp(-x))
    expected = -((1 if weights is None else weights) * y * np.log(p) + (1 - y) * np.log(1 - p))
    got = binary_cross_entropy(LOGITS, LABELS, None if weights is None else jnp.asarray(weights))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_pytorchs_pos_weight():
    torch = pytest.importorskip("torch")
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(POSITIVE), reduction="none")
    expected = loss(torch.tensor(LOGITS), torch.tensor(LABELS)).numpy()
    got = binary_cross_entropy(LOGITS, LABELS, jnp.asarray(POSITIVE))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_large_logits_stay_finite():
    logits = jnp.array([[1e4, -1e4]])
    for labels in (jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])):
        loss, vjp = jax.vjp(
            jax.jit(
                functools.partial(
                    binary_cross_entropy, labels=labels, positive_weights=jnp.full(2, 3.0)
                )
            ),
            logits,
        )
        assert np.isfinite(loss).all() and np.isfinite(vjp(jnp.ones_like(loss))[0]).all()
