"""Bounds of variational autoencoders against their formulas in float64, and PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dlcore.losses import (
    bernoulli_log_likelihood,
    evidence_bound,
    free_bits,
    gaussian_log_likelihood,
    importance_bound,
    kl_from_standard,
    standard_log_density,
)
from dlcore.parallel import Part, part_of_batch

RNG = np.random.default_rng(0)
X = RNG.random((3, 2, 4)).astype(np.float32)
OUTPUTS = RNG.normal(size=(3, 2, 4)).astype(np.float32) * 4
MEAN, LOG_VARIANCE = RNG.normal(size=(2, 3, 5)).astype(np.float32)


def test_likelihoods_are_sums_over_pixels():
    x, outputs = X.astype(np.float64), OUTPUTS.astype(np.float64)
    p = 1 / (1 + np.exp(-outputs))
    expected = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum((1, 2))
    np.testing.assert_allclose(bernoulli_log_likelihood(OUTPUTS, X), expected, rtol=1e-5)
    expected = stats.norm(outputs, np.exp(0.35)).logpdf(x).sum((1, 2))
    got = gaussian_log_likelihood(OUTPUTS, jnp.array(0.7), X)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    expected = stats.norm.logpdf(outputs).sum(-1)
    np.testing.assert_allclose(standard_log_density(OUTPUTS), expected, rtol=1e-5)


def test_half_precision_is_summed_in_single():
    half = jnp.full((1, 1000), 0.01, jnp.bfloat16)
    for found in (
        bernoulli_log_likelihood(half, half),
        gaussian_log_likelihood(half, jnp.zeros((), jnp.bfloat16), half),
        standard_log_density(half),
    ):
        assert found.dtype == jnp.float32
    assert float(standard_log_density(half)[0]) == pytest.approx(-918.99, abs=0.01)


def test_the_divergence_is_pytorchs():
    torch = pytest.importorskip("torch")
    normal = torch.distributions.Normal
    deviation = torch.tensor(np.exp(LOG_VARIANCE / 2))
    expected = torch.distributions.kl_divergence(
        normal(torch.tensor(MEAN), deviation), normal(0, 1)
    )
    np.testing.assert_allclose(kl_from_standard(MEAN, LOG_VARIANCE), expected.numpy(), rtol=1e-5)


def test_the_divergence_is_the_mean_of_its_log_ratio():
    z = MEAN + np.exp(LOG_VARIANCE / 2) * RNG.normal(size=(100_000, *MEAN.shape))
    ratio = stats.norm.logpdf(z, MEAN, np.exp(LOG_VARIANCE / 2)) - stats.norm.logpdf(z)
    within = 5 * ratio.std(0) / np.sqrt(len(z))
    assert (np.abs(ratio.mean(0) - kl_from_standard(MEAN, LOG_VARIANCE)) < within).all()


def test_free_bits_are_of_the_mean_of_each_unit():
    kl = np.array([[0.0, 0.4, 2.0], [0.2, 0.2, 1.0]], np.float32)
    # The means are 0.1, 0.3 and 1.5: the first unit alone has less than 0.2.
    value, gradient = jax.value_and_grad(lambda kl: free_bits(kl, 0.2).mean())(kl)
    assert float(value) == pytest.approx(0.2 + 0.3 + 1.5)
    np.testing.assert_allclose(gradient, [[0, 0.5, 0.5]] * 2)
    np.testing.assert_allclose(free_bits(jnp.array(kl), 0), kl.sum(1))


def test_free_bits_of_padding_and_of_parts_are_those_of_the_batch():
    kl = RNG.random((4, 3)).astype(np.float32)
    expected = np.maximum(kl.mean(0), 0.5).sum()
    padded = np.concatenate([kl, np.full((2, 3), 99, np.float32)])
    weight = jnp.array([1.0, 1, 1, 1, 0, 0])
    with part_of_batch(Part(weight=weight)):
        found = free_bits(padded, 0.5)
    assert float(found[:4].mean()) == pytest.approx(expected, rel=1e-5)

    @functools.partial(jax.pmap, axis_name="data")
    def of_parts(rows):
        with part_of_batch(Part(axis_name="data")):
            return free_bits(rows, 0.5)

    assert float(of_parts(kl.reshape(2, 2, 3)).mean()) == pytest.approx(expected, rel=1e-5)


def test_bounds_rise_with_samples_and_stay_below_the_likelihood():
    """p(x, z) = N(z; 0, 1) N(x; z, 1), so that log p(x) = log N(x; 0, 2); q is a bad N(0, 1)."""
    x = 1.5
    z = RNG.normal(size=(64, 4000)).astype(np.float32)
    weights = stats.norm.logpdf(x, z).astype(np.float32)  # p(x | z) p(z) / q(z)
    truth = stats.norm.logpdf(x, 0, np.sqrt(2))
    bounds = []
    for samples in (1, 4, 16, 64):
        groups = weights.reshape(samples, -1)
        bounds.append(float(jax.jit(importance_bound)(groups).mean()))
    assert bounds == sorted(bounds) and bounds[-1] < truth
    # With one sample it is the bound of evidence: here E log p(x | z), since KL(q || p(z)) = 0.
    assert bounds[0] == pytest.approx(-0.5 * (np.log(2 * np.pi) + x**2 + 1), abs=0.02)
    assert truth - bounds[-1] < 0.02 < truth - bounds[1]
    exact = np.log(np.exp(weights[:2].astype(np.float64)).mean(0))
    np.testing.assert_allclose(importance_bound(weights[:2]), exact, rtol=1e-4, atol=1e-6)


def test_beta_is_a_factor_of_the_divergence():
    found = evidence_bound(jnp.array([-3.0, -4.0]), jnp.array([1.0, 2.0]), jnp.array([0.0, 2.0]))
    assert found.tolist() == [-3.0, -8.0]
