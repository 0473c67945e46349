"""The noise distribution: its probabilities, its draws, bad counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dlcore import losses
from dlcore.errors import InputError

COUNTS = np.array([5, 0, 100, 1, 1, 40, 3, 7])
SEEN = np.array(
    [5, 1, 100, 1, 1, 40, 3, 7]
)  # The word with count 0 gets the smallest positive count.


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_frequencies(power):
    """100,000 draws at a fixed seed fit count^power by the chi-square test."""
    sampler = losses.unigram_sampler(COUNTS, power=power)
    probs = SEEN**power / (SEEN**power).sum()
    np.testing.assert_allclose(sampler.log_prob(jnp.arange(8)), np.log(probs), rtol=1e-6)
    draws = sampler.sample(jax.random.key(0), (100_000,))
    assert draws.dtype == jnp.int32
    observed = np.bincount(draws, minlength=8)
    assert scipy.stats.chisquare(observed, 100_000 * probs).pvalue > 0.01


@pytest.mark.parametrize("words", [1, 2, 1000])
def test_the_alias_table_is_the_distribution(words):
    """Adding up the columns gives q, to float32's rounding."""
    counts = np.random.default_rng(0).zipf(1.3, words).clip(max=10**6)
    sampler = losses.unigram_sampler(counts)
    probs = np.zeros(words)
    np.add.at(probs, np.arange(words), np.minimum(sampler.threshold, 1) / words)
    np.add.at(probs, sampler.alias, (1 - np.minimum(sampler.threshold, 1)) / words)
    np.testing.assert_allclose(probs, counts / counts.sum(), atol=1e-7 / words)


def test_draws_depend_on_the_key_and_jit_changes_nothing():
    sampler = losses.unigram_sampler(COUNTS)
    draws = sampler.sample(jax.random.key(0), (50, 3))
    np.testing.assert_array_equal(
        jax.jit(lambda s, k: s.sample(k, (50, 3)))(sampler, jax.random.key(0)), draws
    )
    assert (sampler.sample(jax.random.key(1), (50, 3)) != draws).any()


def test_log_unigram():
    np.testing.assert_allclose(losses.log_unigram(COUNTS), np.log(SEEN / SEEN.sum()), rtol=1e-6)


@pytest.mark.parametrize("counts", [[], [0, 0], [3, -1], [1, np.nan], [1, np.inf]])
def test_bad_counts(counts):
    for make in (losses.unigram_sampler, losses.log_unigram):
        with pytest.raises(InputError, match=f"the {len(counts)} word counts are not numbers"):
            make(np.array(counts))
    with pytest.raises(ValueError, match="expected one per word"):
        losses.log_unigram(np.ones((2, 2)))
