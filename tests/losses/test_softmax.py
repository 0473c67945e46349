"""The z-loss of the full softmax against NumPy, its gradient against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.losses.output import Readout, output_layer
from dlcore.losses.softmax import nats_and_log_z
from dlcore.types import Mean

N, D, V = 5, 3, 7
WEIGHTS = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
random = np.random.default_rng(0)
PARAMS = [random.normal(size=shape) for shape in ((N, D), (V, D), (V,))]
TARGETS = random.integers(V, size=N)


def in_numpy(params, z_weight):
    """Computes the mean training loss over the positions that count, in float64."""
    hidden, kernel, bias = params
    scores = hidden @ kernel.T + bias
    log_z = np.log(np.exp(scores).sum(-1))
    losses = log_z - scores[np.arange(N), TARGETS] + z_weight * log_z**2
    return losses[WEIGHTS > 0].mean()


def ours(params, z_weight):
    output = output_layer("full", np.ones(V, int), z_weight=z_weight)
    losses = output.losses(jax.random.key(0), Readout(*params), jnp.asarray(TARGETS))
    return Mean.of(losses, jnp.asarray(WEIGHTS, jnp.float32)).compute()


@pytest.mark.parametrize("z_weight", [0.0, 0.3])
def test_value_and_gradient_are_numpys_and_padding_counts_nothing(z_weight):
    params = [jnp.asarray(param, jnp.float32) for param in PARAMS]
    value, gradients = jax.value_and_grad(lambda p: ours(p, z_weight))(params)
    np.testing.assert_allclose(value, in_numpy(PARAMS, z_weight), rtol=1e-5)
    for place, gradient in enumerate(gradients):
        expected = np.zeros(gradient.shape)
        for index in np.ndindex(gradient.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [param.copy() for param in PARAMS]
                moved[place][index] += step
                ends.append(in_numpy(moved, z_weight))
            expected[index] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    assert not gradients[0][WEIGHTS == 0].any()


def test_the_z_loss_pulls_the_normaliser_to_one_and_keeps_the_probabilities():
    """Shifted by log Z all scores give the same P; the z-loss alone tells them apart."""
    hidden, kernel, bias = (jnp.asarray(param, jnp.float32) for param in PARAMS)
    targets = jnp.asarray(TARGETS)
    nats, log_z = nats_and_log_z(hidden, kernel, bias, targets)
    shifted, log_z_shifted = nats_and_log_z(hidden, kernel, bias + 4, targets)
    np.testing.assert_allclose(shifted, nats, atol=1e-5)
    np.testing.assert_allclose(log_z_shifted, log_z + 4, rtol=1e-6)

    def fit(bias, _):
        return bias - 0.1 * jax.grad(lambda b: ours([hidden, kernel, b], 1.0))(bias), None

    fitted, _ = jax.lax.scan(fit, bias + 4, length=300)
    counted = nats_and_log_z(hidden, kernel, fitted, targets)[1][WEIGHTS > 0]
    assert np.abs(counted).mean() < 0.5 < np.abs(log_z_shifted).mean()
