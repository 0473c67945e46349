"""Probes of codes, use of latent units and Parzen windows against plain loops and scikit-learn."""

import numpy as np
import pytest
from scipy import stats
from sklearn.neighbors import KernelDensity, KNeighborsClassifier

from dlcore.errors import InputError
from dlcore.evaluation import (
    active_units,
    latent_use,
    linear_probe,
    nearest_neighbours,
    parzen,
    parzen_log_densities,
)

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 700)
CODES = RNG.normal(size=(700, 4)) + 2 * np.eye(3, 4)[LABELS]
TRAIN, TEST = (CODES[:100], LABELS[:100]), (CODES[100:], LABELS[100:])


def test_neighbours_are_scikit_learns_where_there_is_no_tie():
    for count in (1, 200):
        expected = KNeighborsClassifier(min(count, 100)).fit(*TRAIN).score(*TEST)
        assert nearest_neighbours(*TRAIN, *TEST, neighbours=count) == pytest.approx(expected)


def test_the_nearest_wins_a_tie():
    codes = np.array([[0.0], [1.0], [2.0], [3.0]])
    labels = np.array([5, 9, 9, 5])
    # From 0.4 the order is 5, 9, 9, 5; from 1.6 it is 9, 9, 5, 5 of which the first is at 3.0.
    found = [
        nearest_neighbours(codes, labels, np.array([[x]]), np.array([label]), neighbours=4)
        for x, label in ((0.4, 5), (1.6, 9))
    ]
    assert found == [1, 1]


def test_the_probe_reads_labels_off_codes_at_any_scale():
    scales = np.array([1e-3, 1, 1e3, 0])
    found = linear_probe(TRAIN[0] * scales, TRAIN[1], TEST[0] * scales, TEST[1])
    alike = linear_probe(TRAIN[0] * (scales > 0), TRAIN[1], TEST[0] * (scales > 0), TEST[1])
    assert found == pytest.approx(alike, abs=0.01)
    chance = linear_probe(TRAIN[0], RNG.permutation(TRAIN[1]), *TEST)
    assert found > chance + 0.15
    with pytest.raises(InputError, match="labels of two classes"):
        linear_probe(TRAIN[0], np.zeros(100, int), *TEST)


def test_the_use_of_latent_units():
    """One unit has the image, one nothing, and one is far from the prior and says nothing."""
    x = RNG.normal(size=400)
    means = np.stack([x * 0.8, 0 * x, 0 * x + 2], 1)
    log_variances = np.log(np.stack([0 * x + 0.36, 0 * x + 1, 0 * x + 0.5], 1))
    use = latent_use(means, log_variances)
    assert use.active.tolist() == active_units(means).tolist() == [True, False, False]
    assert not use.collapsed
    deviation = np.exp(log_variances / 2)
    kl = -np.log(deviation) + (deviation**2 + means**2) / 2 - 0.5
    np.testing.assert_allclose(use.kl, kl.mean(0))
    np.testing.assert_allclose(use.information[1:], 0, atol=1e-9)
    # Signal 0.64 and noise 0.36 of normal x.
    assert use.information[0] == pytest.approx(0.5 * np.log(1 / 0.36), abs=0.08)
    noise = np.random.default_rng(0).standard_normal(means.shape)[:, 0]
    z = means[:, 0] + 0.6 * noise
    mixture = stats.norm.pdf(z[:, None], means[:, 0], 0.6).mean(1)
    plain = (stats.norm.logpdf(z, means[:, 0], 0.6) - np.log(mixture)).mean()
    assert use.information[0] == pytest.approx(plain)


def test_a_posterior_that_is_the_prior_has_collapsed():
    assert latent_use(np.zeros((5, 3)), np.zeros((5, 3))).collapsed


def test_parzen_windows_are_scikit_learns():
    samples, x = RNG.normal(size=(150, 3)), RNG.normal(size=(70, 3))
    expected = KernelDensity(bandwidth=0.4).fit(samples).score_samples(x)
    np.testing.assert_allclose(parzen_log_densities(samples, x, 0.4), expected)
    found = parzen(samples, RNG.normal(size=(50, 3)), x)
    values = KernelDensity(bandwidth=found.bandwidth).fit(samples).score_samples(x)
    assert found.mean == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(values.std() / np.sqrt(70))
    assert 0.1 < found.bandwidth < 1
