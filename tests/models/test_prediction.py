"""The predictions of translators: generated and copied words, and the smoothed loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.losses.output import Readout
from dlcore.models.text.prediction import Copy, Prediction, log_probs, nats, training_losses

B, S, T, V, F = 3, 6, 5, 11, 16


def test_prediction_that_copies_by_hand():
    """Three words are generated with probabilities 1/2, 1/4, 1/4 by the hidden states."""
    readout = Readout(jnp.zeros((1, 2, 1)), jnp.ones((3, 1)), jnp.log(jnp.array([2.0, 1, 1])))
    weights = jnp.array([[[0.5, 0.3, 0.2, 0.0], [0.0, 1.0, 0.0, 0.0]]])
    # Word 2 stands at two places of the source; the last place is padding.
    copy = Copy(jnp.array([[0.4, 1.0]]), weights, jnp.array([[2, 0, 2, 1]]))
    generated = [0.5, 0.25, 0.25]
    expected = np.log([[0.2 + 0.6 * 0.3, 0.1, 0.1 + 0.6 * 0.7], generated])
    prediction = Prediction(readout, copy)
    np.testing.assert_allclose(log_probs(prediction)[0], expected, rtol=1e-5)
    targets = jnp.array([[2, 1]])
    at_targets = [-expected[0, 2], -expected[1, 1]]
    np.testing.assert_allclose(nats(prediction, targets)[0], at_targets, rtol=1e-5)
    plain = Prediction(readout)
    np.testing.assert_allclose(log_probs(plain)[0], np.log([generated] * 2), rtol=1e-5)
    np.testing.assert_allclose(nats(plain, targets)[0], np.log([4, 4]), rtol=1e-5)
    # Never generated and never copied: as unlikely as numbers get, not impossible.
    never = Prediction(readout, copy._replace(gate=jnp.zeros((1, 2))))
    assert np.isfinite(log_probs(never)).all() and log_probs(never)[0, 1, 1] < -80


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize(("share", "z_weight"), [(0.0, 0.0), (0.1, 0.2), (1.0, 0.0)])
def test_losses_against_their_definition(copies, share, z_weight):
    """Cross-entropy to (1 - share) one-hot + share / V, the z-loss, and their gradients."""
    random = np.random.default_rng(2)
    hidden, kernel, bias = (
        random.normal(size=shape).astype(np.float32) for shape in ((B, T, F), (V, F), (V,))
    )
    gate = random.random((B, T)).astype(np.float32)
    weights = random.dirichlet(np.ones(S), (B, T)).astype(np.float32)
    targets = random.integers(0, V, (B, T))
    # So that every word can be copied.
    source = np.tile(np.arange(S), (B, 1))

    def prediction(hidden, kernel, bias, gate):
        copy = Copy(gate, weights, source) if copies else None
        return Prediction(Readout(hidden, kernel, bias), copy)

    def defined(*args):
        soft = (1 - share) * jax.nn.one_hot(targets, V) + share / V
        hidden, kernel, bias, _ = args
        scores = jnp.einsum("btf,vf->btv", hidden, kernel) + bias[None, None]
        z_losses = z_weight * jax.nn.logsumexp(scores, axis=-1) ** 2
        return z_losses - (soft * log_probs(prediction(*args))).sum(-1)

    def ours(*args):
        return training_losses(prediction(*args), targets, smoothing=share, z_weight=z_weight)

    def both(f):
        @jax.jit
        def run(*args):
            y, pull = jax.vjp(f, *args)
            return y, pull(jnp.sin(jnp.arange(B * T, dtype=float).reshape(B, T)))

        return run(hidden, kernel, bias, gate)

    for expected, found in zip(*map(jax.tree.leaves, (both(defined), both(ours))), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
