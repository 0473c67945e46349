"""The objectives of word2vec, pair by pair and over all samples that a tiny vocabulary has."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from dlcore.errors import InputError
from dlcore.losses.word_trees import huffman
from dlcore.models.embedding.objectives import OBJECTIVES, Scored, objective

V, B, T, C = 5, 2, 3, 4
COUNTS = np.array([16, 81, 1, 256, 16])
Q = np.array([8, 27, 1, 64, 8]) / 108  # counts ** 0.75
rng = np.random.default_rng(0)
SCORES = rng.normal(size=(B, T, V))  # of each query and word
TARGETS = rng.integers(V, size=(B, 1, C))
PAIRS = rng.random((B, T, C)) < 0.6


def softplus(x):
    return np.log1p(np.exp(x))


def shift(name: str, negatives: int) -> np.ndarray:
    """Returns the difference between the score of each word and its log-odds against noise."""
    return np.log(V * negatives * Q) if name == "nce" else np.zeros(V)


def estimate(name: str, others: list[int], negatives: int) -> float:
    """The loss of all pairs against the given noise."""
    others = np.array(others)
    scores = np.take_along_axis(SCORES, np.broadcast_to(TARGETS, PAIRS.shape), axis=2)
    given = (scores, SCORES[..., others], PAIRS, TARGETS, others[None, None])
    goal = objective(name, COUNTS, negatives=negatives, samples=len(others))
    return float(goal.loss(Scored(*map(jnp.asarray, given))))


def pairs() -> list[tuple[np.ndarray, int]]:
    """Yields the scores of all words and the target of each pair."""
    return [(SCORES[b, t], TARGETS[b, 0, c]) for b, t, c in np.argwhere(PAIRS)]


@pytest.mark.parametrize("name", ["negative_sampling", "nce"])
@pytest.mark.parametrize("negatives", [1, 3])
def test_pairs_against_noise(name: str, negatives: int) -> None:
    others, total = [0, 3, 3, 1], 0.0
    for scores, target in pairs():
        odds = scores - shift(name, negatives)
        noise = sum(softplus(odds[w]) for w in others)
        total += softplus(-odds[target]) + negatives / len(others) * noise
    np.testing.assert_allclose(estimate(name, others, negatives), total, rtol=1e-5)


@pytest.mark.parametrize("name", ["negative_sampling", "nce"])
@pytest.mark.parametrize(("samples", "negatives"), [(1, 2), (2, 2), (3, 1), (2, 3)])
def test_shared_noise_expects_what_private_noise_does(
    name: str, samples: int, negatives: int
) -> None:
    shared = 0.0
    for others in itertools.product(range(V), repeat=samples):
        shared += Q[list(others)].prod() * estimate(name, [*others], negatives)
    private = 0.0
    for scores, target in pairs():
        odds = scores - shift(name, negatives)
        private += softplus(-odds[target])
        for drawn in itertools.product(range(V), repeat=negatives):
            private += Q[list(drawn)].prod() * softplus(odds[list(drawn)]).sum()
    np.testing.assert_allclose(shared, private, rtol=1e-5)


@pytest.mark.parametrize("exponent", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("name", ["negative_sampling", "nce"])
def test_noise_follows_the_counts(name: str, exponent: float) -> None:
    goal = objective(name, COUNTS, samples=50_000, exponent=exponent)
    drawn = goal.others(jax.random.key(2))
    assert drawn.shape == (50_000,)
    share = COUNTS**exponent / (COUNTS**exponent).sum()
    seen = np.bincount(drawn, minlength=V)
    assert scipy.stats.chisquare(seen, 50_000 * share).pvalue > 0.01
    assert (goal.others(jax.random.key(3)) != drawn).any()


def test_full_is_the_log_softmax() -> None:
    goal = objective("full", COUNTS)
    others = goal.others(jax.random.key(0))
    np.testing.assert_array_equal(others, np.arange(V))
    total = sum(-scipy.special.log_softmax(scores)[target] for scores, target in pairs())
    np.testing.assert_allclose(estimate("full", others.tolist(), 5), total, rtol=1e-5)


def hierarchical_losses(scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """-log P of each word as the target of one query, given the scores of the inner nodes."""
    goal = objective("hierarchical", counts)
    assert goal.rows == len(counts) - 1 and goal.others(jax.random.key(0)).shape == (0,)
    words = jnp.arange(len(counts))
    none = jnp.zeros((1, 1, 0))

    def loss(word: jax.Array) -> jax.Array:
        targets = word[None, None, None]
        given = jnp.asarray(scores)[goal.rows_of(targets)]
        return goal.loss(Scored(given, none, jnp.ones((1, 1, 1), bool), targets, none.astype(int)))

    return np.asarray(jax.jit(jax.vmap(loss))(words))


@pytest.mark.parametrize("words", [2, 3, 50, 1000])
def test_the_tree_is_a_distribution(words: int) -> None:
    counts = np.sort(rng.zipf(1.5, words))[::-1]
    scores = rng.normal(size=words - 1) * 3
    losses = hierarchical_losses(scores, counts)
    assert abs(np.exp(-losses.astype(float)).sum() - 1) < 1e-6
    tree = huffman(counts)
    for word, length in enumerate(tree.lengths[:50]):
        way = zip(tree.nodes[word, :length], tree.codes[word, :length], strict=True)
        expected = sum(softplus(-scores[node] if code else scores[node]) for node, code in way)
        np.testing.assert_allclose(losses[word], expected, rtol=1e-5)


def test_words_that_are_no_pair_count_nothing() -> None:
    nothing = np.zeros_like(PAIRS)
    for name in OBJECTIVES:
        goal = objective(name, COUNTS, samples=3)
        others = goal.others(jax.random.key(0))
        rows = goal.rows_of(jnp.asarray(TARGETS))
        scores = jnp.ones((B, T, C) + rows.shape[3:])
        against = jnp.ones((B, T, len(others)))
        given = (jnp.asarray(nothing), jnp.asarray(TARGETS), others[None, None])
        assert goal.loss(Scored(scores, against, *given)) == 0


def test_what_each_objective_reads() -> None:
    for name in OBJECTIVES:
        goal = objective(name, COUNTS, negatives=7, samples=9)
        assert goal.exact == (name in ("hierarchical", "full"))
        assert goal.rows == V - (name == "hierarchical")
        sizes = {"hierarchical": 0, "full": V}
        assert goal.others(jax.random.key(0)).shape == (sizes.get(name, 9),)
    with pytest.raises(InputError, match="unknown objective 'softmax'; choose one of: full, h"):
        objective("softmax", COUNTS)
