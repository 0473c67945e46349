"""The linear-chain CRF equals the enumeration of all C^T tag sequences."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import losses

B, T, C = 6, 5, 3
LENGTHS = jnp.array([5, 1, 3, 0, 2, 4], jnp.int32)
rng = np.random.default_rng(0)
EMISSIONS = jnp.asarray(2 * rng.normal(size=(B, T, C)), jnp.float32)
TAGS = jnp.asarray(rng.integers(C, size=(B, T)), jnp.int32)
PARAMS = {
    "transitions": jnp.asarray(rng.normal(size=(C, C)), jnp.float32),
    "start": jnp.asarray(rng.normal(size=C), jnp.float32),
    "end": jnp.asarray(rng.normal(size=C), jnp.float32),
}


def score(emissions, tags):
    """Computes the score by its definition, in float64."""
    p = {name: np.asarray(value, np.float64) for name, value in PARAMS.items()}
    if not len(tags):
        return 0.0
    steps = sum(float(e[tag]) for e, tag in zip(emissions, tags, strict=True))
    ways = sum(p["transitions"][a, b] for a, b in itertools.pairwise(tags))
    return p["start"][tags[0]] + steps + ways + p["end"][tags[-1]]


def enumerated(row):
    """Returns all tag sequences of a row, and their scores."""
    n = int(LENGTHS[row])
    sequences = list(itertools.product(range(C), repeat=n))
    return sequences, np.array([score(np.asarray(EMISSIONS[row, :n]), s) for s in sequences])


def test_log_partition_and_likelihood():
    partition = losses.crf_log_partition(EMISSIONS, LENGTHS, **PARAMS)
    likelihood = log_likelihood(EMISSIONS, TAGS, LENGTHS)
    for row, n in enumerate(LENGTHS.tolist()):
        _, scores = enumerated(row)
        expected = np.logaddexp.reduce(scores)
        np.testing.assert_allclose(partition[row], expected, rtol=1e-6, atol=1e-6)
        gold = score(np.asarray(EMISSIONS[row, :n]), TAGS[row, :n].tolist())
        np.testing.assert_allclose(likelihood[row], gold - expected, rtol=1e-5, atol=1e-6)


def test_likelihoods_of_all_taggings_sum_to_one():
    every = jnp.asarray(list(itertools.product(range(C), repeat=T)), jnp.int32)
    emissions = jnp.broadcast_to(EMISSIONS[:1], (len(every), T, C))
    lengths = jnp.full(len(every), T)
    likelihoods = log_likelihood(emissions, every, lengths)
    np.testing.assert_allclose(np.exp(likelihoods).sum(), 1, rtol=1e-5)


def test_viterbi():
    tags, best = losses.crf_viterbi(EMISSIONS, LENGTHS, **PARAMS)
    assert tags.shape == (B, T) and tags.dtype == jnp.int32
    for row, n in enumerate(LENGTHS.tolist()):
        sequences, scores = enumerated(row)
        assert tuple(tags[row, :n].tolist()) == sequences[scores.argmax()]
        np.testing.assert_array_equal(tags[row, n:], 0)
        np.testing.assert_allclose(best[row], scores.max(), rtol=1e-6)


def test_marginals():
    """The log partition's gradients are the marginals of tags and of pairs of tags."""

    def total(emissions, params):
        return losses.crf_log_partition(emissions, LENGTHS, **params).sum()

    marginals, of_params = jax.grad(total, argnums=(0, 1))(EMISSIONS, PARAMS)
    expected, pairs = np.zeros((B, T, C)), np.zeros((C, C))
    for row in range(B):
        sequences, scores = enumerated(row)
        probs = np.exp(scores - np.logaddexp.reduce(scores))
        for sequence, p in zip(sequences, probs, strict=True):
            for t, tag in enumerate(sequence):
                expected[row, t, tag] += p
            for a, b in itertools.pairwise(sequence):
                pairs[a, b] += p
    np.testing.assert_allclose(marginals, expected, atol=1e-6)
    real = np.arange(T)[None] < np.asarray(LENGTHS)[:, None]
    np.testing.assert_allclose(marginals.sum(-1), real, atol=1e-6)
    np.testing.assert_allclose(of_params["transitions"], pairs, atol=2e-6)
    np.testing.assert_allclose(of_params["start"], expected[:, 0].sum(0), atol=2e-6)


def total(emissions, params, tags, lengths):
    likelihoods = losses.crf_log_likelihood(emissions, tags, lengths, **params)
    return likelihoods.sum(), likelihoods


gradients_of = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
viterbi = jax.jit(functools.partial(losses.crf_viterbi, **PARAMS))
log_likelihood = jax.jit(functools.partial(losses.crf_log_likelihood, **PARAMS))


def results(emissions, tags, lengths):
    (_, likelihoods), gradients = gradients_of(emissions, PARAMS, tags, lengths)
    return likelihoods, *gradients, viterbi(emissions, lengths)


@pytest.mark.parametrize("filler", [0.0, 1e9, np.nan, -np.inf])
def test_padding_changes_no_bit(filler):
    """Eleven more steps of garbage leave the bits of values, gradients and tags unchanged."""
    lengths = jnp.array([40, 1, 17, 0, 2, 33, 25, 39], jnp.int32)
    steps, more = 40, 11
    draw = np.random.default_rng(1)
    emissions = jnp.asarray(draw.normal(size=(8, steps, C)), jnp.float32)
    tags = jnp.asarray(draw.integers(C, size=(8, steps)), jnp.int32)
    real = jnp.arange(steps + more)[None] < lengths[:, None]
    padded = jnp.pad(emissions, ((0, 0), (0, more), (0, 0)))
    padded = jnp.where(real[..., None], padded, filler)
    padded_tags = jnp.where(real, jnp.pad(tags, ((0, 0), (0, more))), 99)

    value, of_emissions, of_params, (best, best_score) = results(emissions, tags, lengths)
    mine = results(padded, padded_tags, lengths)
    np.testing.assert_array_equal(mine[0], value)
    np.testing.assert_array_equal(mine[1][:, :steps], of_emissions)
    np.testing.assert_array_equal(mine[1][:, steps:], 0)
    jax.tree.map(np.testing.assert_array_equal, mine[2], of_params)
    np.testing.assert_array_equal(mine[3][0][:, :steps], best)
    np.testing.assert_array_equal(mine[3][0][:, steps:], 0)
    np.testing.assert_array_equal(mine[3][1], best_score)
    # The shorter batch is padded too: against each row cut to its length.
    for row, n in enumerate(lengths.tolist()):
        one = slice(row, row + 1)
        tags_alone, _ = viterbi(emissions[one, : max(n, 1)], lengths[one])
        np.testing.assert_array_equal(best[row, :n], tags_alone[0, :n])


def test_a_batch_is_its_rows():
    likelihoods, *_, (tags, _) = results(EMISSIONS, TAGS, LENGTHS)
    for row in range(B):
        one = slice(row, row + 1)
        mine, *_, (mine_tags, _) = results(EMISSIONS[one], TAGS[one], LENGTHS[one])
        np.testing.assert_allclose(mine, likelihoods[one], rtol=1e-6)
        np.testing.assert_array_equal(mine_tags, tags[one])


def test_a_single_step():
    """T = 1 is a softmax over start + emission + end."""
    lengths = jnp.ones(B, jnp.int32)
    likelihoods = losses.crf_log_likelihood(EMISSIONS[:, :1], TAGS[:, :1], lengths, **PARAMS)
    logits = EMISSIONS[:, 0] + (PARAMS["start"] + PARAMS["end"])[None]
    expected = jax.nn.log_softmax(logits)[jnp.arange(B), TAGS[:, 0]]
    np.testing.assert_allclose(likelihoods, expected, rtol=1e-5, atol=1e-6)
    tags, _ = losses.crf_viterbi(EMISSIONS[:, :1], lengths, **PARAMS)
    np.testing.assert_array_equal(tags[:, 0], logits.argmax(-1))


@pytest.mark.parametrize("scale", [1e4, 1e8])
def test_very_large_scores(scale):
    """Results are finite, and the best tagging has probability 1 up to rounding of its score."""
    emissions = scale * EMISSIONS
    likelihoods, of_emissions, of_params, (tags, best) = results(emissions, TAGS, LENGTHS)
    for array in jax.tree.leaves((likelihoods, of_emissions, of_params, best)):
        assert np.isfinite(array).all()
    rounding = 2 * T * np.spacing(np.abs(best))
    assert (likelihoods <= rounding).all()
    of_the_best = log_likelihood(emissions, tags, LENGTHS)
    assert (np.abs(of_the_best) <= rounding).all()


def test_forbidden_transitions():
    """A score of -1e4 keeps Viterbi and all probability away from a transition."""
    params = PARAMS | {"transitions": PARAMS["transitions"].at[0].set(-1e4).at[:, 0].set(-1e4)}
    tags, _ = losses.crf_viterbi(EMISSIONS, LENGTHS, **params)
    for row in (0, 2, 4, 5):
        assert (tags[row, : LENGTHS[row]] != 0).all()

    def total(params):
        return losses.crf_log_partition(EMISSIONS, LENGTHS, **params).sum()

    pairs = jax.grad(total)(params)["transitions"]
    np.testing.assert_array_equal(pairs[0], 0)
    np.testing.assert_allclose(pairs.sum(), 4 + 2 + 1 + 3, rtol=1e-5)


def test_half_precision_is_summed_in_single():
    halves = EMISSIONS.astype(jnp.bfloat16)
    mine = losses.crf_log_likelihood(halves, TAGS, LENGTHS, **PARAMS)
    assert mine.dtype == jnp.float32
    exact = losses.crf_log_likelihood(halves.astype(jnp.float32), TAGS, LENGTHS, **PARAMS)
    np.testing.assert_array_equal(mine, exact)


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"start \(2,\) .* are not \(B, T, C\)"):
        losses.crf_viterbi(EMISSIONS, LENGTHS, **PARAMS | {"start": jnp.zeros(2)})
    with pytest.raises(ValueError, match=r"emissions \(6, 0, 3\)"):
        losses.crf_log_partition(EMISSIONS[:, :0], LENGTHS, **PARAMS)
    with pytest.raises(ValueError, match=r"tags \(6, 4\) for emissions \(6, 5, 3\)"):
        losses.crf_log_likelihood(EMISSIONS, TAGS[:, :4], LENGTHS, **PARAMS)
