"""The uncertainty of several predictions against SciPy's entropy."""

import numpy as np
import pytest
from scipy import stats

from dlcore.metrics.uncertainty import uncertainty


@pytest.mark.parametrize("shape", [(7, 5, 4), (3, 2, 6, 2), (2, 0, 3)])
def test_entropy_and_mutual_information(shape):
    samples = np.random.default_rng(0).dirichlet(np.full(shape[-1], 0.3), shape[:-1])
    found = uncertainty(samples)
    np.testing.assert_allclose(found.probabilities, samples.mean(0))
    np.testing.assert_allclose(found.entropy, stats.entropy(samples.mean(0), axis=-1))
    # The mutual information is the mean divergence of the samples from their mean.
    divergence = stats.entropy(samples, samples.mean(0, keepdims=True), axis=-1).mean(0)
    np.testing.assert_allclose(found.mutual_information, divergence, atol=1e-12)
    assert (found.mutual_information <= found.entropy).all()


def test_samples_that_agree_have_no_mutual_information():
    certain = uncertainty(np.broadcast_to([[1.0, 0.0], [0.3, 0.7]], (4, 2, 2)))
    assert (certain.mutual_information >= 0).all() and (certain.mutual_information < 1e-12).all()
    np.testing.assert_allclose(certain.entropy, [0, stats.entropy([0.3, 0.7])])
