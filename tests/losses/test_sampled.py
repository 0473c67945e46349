"""Sampled softmax and noise-contrastive estimation approach the full softmax.

A sample that holds each word exactly K q(w) times turns both estimates into their expectations, and
on a tiny vocabulary all V^K samples can be enumerated, so nothing here is left to chance.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from dlcore import losses

V, N, D = 5, 7, 3
COUNTS = np.array([4, 1, 2, 1, 2])
Q = COUNTS / COUNTS.sum()
rng = np.random.default_rng(0)
HIDDEN, KERNEL, BIAS = (
    jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((N, D), (V, D), (V,))
)
TARGETS = jnp.asarray(rng.integers(V, size=N), jnp.int32)
LOSSES = [losses.sampled_softmax, losses.noise_contrastive]


class Given(NamedTuple):
    """A sampler that always draws the given words, with the probabilities Q."""

    words: jax.Array
    log_probs: jax.Array = jnp.log(jnp.asarray(Q, jnp.float32))

    def sample(self, key, shape):
        assert self.words.shape == shape
        return self.words

    def log_prob(self, ids):
        return self.log_probs[ids]


def proportional(times):
    """Returns a sample with each word exactly K q(w) times."""
    return np.repeat(np.arange(V), times * COUNTS)


def estimate(loss, words, params=(HIDDEN, KERNEL, BIAS), **options):
    words = jnp.asarray(words, jnp.int32)

    @jax.jit
    def run(params):
        sampled = {"sampler": Given(words), "samples": words.size, **options}
        return loss(jax.random.key(0), *params, TARGETS, **sampled)

    return run(params)


def full(params=(HIDDEN, KERNEL, BIAS)):
    hidden, kernel, bias = params
    logits = hidden @ kernel.T + bias[None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, TARGETS)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def gradients(loss):
    return flat(jax.jit(jax.grad(lambda p: loss(p).mean()))((HIDDEN, KERNEL, BIAS)))


def by_hand(loss, words, log_z=0.0):
    """Computes the losses by their definitions, word by word, in float64."""
    scores = np.asarray(HIDDEN, np.float64) @ np.asarray(KERNEL, np.float64).T + np.asarray(BIAS)
    k = len(words)
    result = []
    for s, t in zip(scores, np.asarray(TARGETS), strict=True):
        if loss is losses.sampled_softmax:
            z = np.exp(s[t]) + sum(np.exp(s[w]) / (k * Q[w]) for w in words if w != t)
            result.append(np.log(z) - s[t])
        else:
            odds = np.exp(s - log_z) / (k * Q)
            result.append(np.log1p(1 / odds[t]) + sum(np.log1p(odds[w]) for w in words))
    return np.array(result)


@pytest.mark.parametrize(
    "words", [pytest.param([0], marks=pytest.mark.slow), [3, 3, 1], [0, 1, 2, 3, 4, 0, 0]], ids=str
)
@pytest.mark.parametrize("loss, options", [(LOSSES[0], {}), (LOSSES[1], {"log_z": 1.5})])
def test_definition(loss, options, words):
    expected = by_hand(loss, words, **options)
    np.testing.assert_allclose(estimate(loss, words, **options), expected, rtol=1e-5)


def test_sampled_softmax_of_a_proportional_sample_is_the_full_softmax():
    words = proportional(1)
    np.testing.assert_allclose(estimate(losses.sampled_softmax, words), full(), rtol=1e-5)
    np.testing.assert_allclose(
        gradients(lambda p: estimate(losses.sampled_softmax, words, p)), gradients(full), atol=1e-6
    )


def every_sample(k):
    """Returns all samples of K words, ignoring their order, and their probabilities."""
    samples = list(itertools.combinations_with_replacement(range(V), k))
    counts = np.array([np.bincount(words, minlength=V) for words in samples])
    return jnp.asarray(samples, jnp.int32), scipy.stats.multinomial(k, Q).pmf(counts)


def test_the_normaliser_is_unbiased_and_the_gradient_consistent():
    """E[Z] = Z for every K, and the bias of the gradient finally falls like 1 / K."""
    scores = HIDDEN @ KERNEL.T + BIAS[None]
    z, target_scores = np.exp(scores).sum(-1), scores[jnp.arange(N), TARGETS]
    biases = []
    for k in (1, 4, 16):
        samples, probs = every_sample(k)

        def mean_loss(params, samples=samples, probs=probs):
            each = jax.vmap(lambda words: estimate(losses.sampled_softmax, words, params))(samples)
            return (jnp.asarray(probs, jnp.float32) @ each).mean(), each

        gradient, each = jax.jit(jax.grad(mean_loss, has_aux=True))((HIDDEN, KERNEL, BIAS))
        z_estimates = np.exp(np.asarray(each + target_scores[None], np.float64))
        np.testing.assert_allclose(probs @ z_estimates, z, rtol=1e-5)
        biases.append(np.linalg.norm(flat(gradient) - gradients(full)))
    assert biases[0] > biases[1] > 3 * biases[2], biases


def expected_noise_contrastive(scores, targets, times, **options):
    """Returns the expected loss over the noise, with K = 10 times, for shared scores [V].

    The loss is linear in the noise, so a proportional sample gives its expectation.
    """
    words = jnp.asarray(proportional(times))
    n = len(targets)
    nothing = jnp.zeros((n, 1)), jnp.zeros((V, 1))
    return losses.noise_contrastive(
        jax.random.key(0),
        *nothing,
        scores,
        targets,
        sampler=Given(words),
        samples=words.size,
        **options,
    )


def test_the_gradient_of_noise_contrastive_becomes_maximum_likelihood():
    """For normalised scores the distance to p(w) - [w = t] falls like 1 / K."""
    log_p = jax.nn.log_softmax(HIDDEN @ KERNEL.T + BIAS[None])
    expected = jnp.exp(log_p) - jax.nn.one_hot(TARGETS, V)
    errors = []
    for times in (1, 10, 100):

        def loss(scores, target, times=times):
            return expected_noise_contrastive(scores, target[None], times)[0]

        gradient = jax.jit(jax.vmap(jax.grad(loss)))(log_p, TARGETS)
        errors.append(np.abs(gradient - expected).max())
    assert errors[0] > 4 * errors[1] > 4 * 8 * errors[2], errors


@pytest.mark.parametrize("log_z", [0.0, 2.0])
@pytest.mark.parametrize("times", [1, 5])
def test_noise_contrastive_finds_the_distribution_of_the_data(times, log_z):
    """For every K the optimum is log p(w) = s(w) - log_z, although nothing normalises it."""
    data = np.array([0.05, 0.4, 0.3, 0.05, 0.2])

    @jax.jit
    def newton(scores):
        def loss(scores):
            per_word = expected_noise_contrastive(scores, jnp.arange(V), times, log_z=log_z)
            return (jnp.asarray(data, jnp.float32) * per_word).sum()

        return scores - jnp.linalg.solve(jax.hessian(loss)(scores), jax.grad(loss)(scores))

    scores = jnp.asarray(np.log(Q) + log_z, jnp.float32)
    for _ in range(10):  # The loss is convex in the scores.
        scores = newton(scores)
    np.testing.assert_allclose(np.exp(scores - log_z), data, rtol=1e-4)


def test_accidental_hits_never_count():
    """Samples that equal the target have no weight in the loss, so neither does their number."""
    hits = jnp.full(4, 2, jnp.int32)
    targets = jnp.full(N, 2, jnp.int32)

    def loss(params):
        sampler = Given(hits)
        return losses.sampled_softmax(
            jax.random.key(0), *params, targets, sampler=sampler, samples=4
        )

    np.testing.assert_array_equal(loss((HIDDEN, KERNEL, BIAS)), np.zeros(N))
    np.testing.assert_array_equal(gradients(loss), np.zeros(N * D + V * D + V))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_touch_the_drawn_rows_only(loss):
    targets = jnp.full(N, 4, jnp.int32)
    sampler = Given(jnp.array([1, 3, 3], jnp.int32))

    def total(kernel, bias):
        return loss(
            jax.random.key(0), HIDDEN, kernel, bias, targets, sampler=sampler, samples=3
        ).sum()

    for gradient in jax.grad(total, argnums=(0, 1))(KERNEL, BIAS):
        np.testing.assert_array_equal(gradient.reshape(V, -1).any(1), [0, 1, 0, 1, 1])


@pytest.mark.parametrize("loss", LOSSES)
def test_initial_loss_with_the_unigram_bias(loss):
    """A zero kernel and the log unigram bias: the loss is that of the unigram distribution.

    For noise-contrastive estimation every word is real with probability 1 / (K + 1).
    """
    sampler, k = losses.unigram_sampler(COUNTS), 20
    bias = jnp.asarray(losses.log_unigram(COUNTS))
    draw = jax.jit(
        lambda key: loss(key, HIDDEN, 0 * KERNEL, bias, TARGETS, sampler=sampler, samples=k)
    )
    if loss is losses.noise_contrastive:
        expected = np.full(N, np.log(k + 1) + k * np.log1p(1 / k))
        np.testing.assert_allclose(draw(jax.random.key(0)), expected, rtol=1e-5)
    else:
        mean = jax.vmap(draw)(jax.random.split(jax.random.key(0), 2000)).mean(0)
        np.testing.assert_allclose(mean, -bias[TARGETS], atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_summed_in_single(loss):
    sampler = losses.unigram_sampler(COUNTS)
    halves = [x.astype(jnp.bfloat16) for x in (HIDDEN, KERNEL, BIAS)]
    result = loss(jax.random.key(0), *halves, TARGETS, sampler=sampler, samples=6)
    assert result.dtype == jnp.float32
    exact = loss(
        jax.random.key(0),
        *[x.astype(jnp.float32) for x in halves],
        TARGETS,
        sampler=sampler,
        samples=6,
    )
    np.testing.assert_allclose(result, exact, rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_bad_shapes(loss):
    sampler = losses.unigram_sampler(COUNTS)
    with pytest.raises(ValueError, match=r"kernel \(3, 5\).* are not \(N, D\)"):
        loss(jax.random.key(0), HIDDEN, KERNEL.T, BIAS, TARGETS, sampler=sampler, samples=2)
    with pytest.raises(ValueError, match="a sampler of 5 words for a kernel of 4"):
        loss(jax.random.key(0), HIDDEN, KERNEL[:4], BIAS[:4], TARGETS, sampler=sampler, samples=2)
