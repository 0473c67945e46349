import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.models.embedding.subwords import compose


@pytest.fixture
def tables() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(5, 3))), jnp.asarray(rng.normal(size=(7, 3)))


# The first and the last row of each table are of no word.
ROWS = jnp.array([2, -1, 1, -1])
IDS = jnp.array([[5, 5, -1], [1, 3, 4], [-1, -1, -1], [-1, -1, -1]])


def plain(words: np.ndarray, grams: np.ndarray) -> np.ndarray:
    """The mean, row by row."""
    vectors = []
    for row, ids in zip(ROWS.tolist(), IDS.tolist(), strict=True):
        parts = [words[row]] * (row >= 0) + [grams[id] for id in ids if id >= 0]
        vectors.append(np.mean(parts, 0) if parts else np.zeros(words.shape[1]))
    return np.stack(vectors)


def test_a_vector_is_the_mean_of_its_parts(tables) -> None:
    expected = plain(*map(np.asarray, tables))
    np.testing.assert_allclose(compose(*tables, ROWS, IDS), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(compose)(*tables, ROWS, IDS), expected, rtol=1e-6)
    # By hand: a seen word, an unseen one, one of no n-grams, and nothing at all.
    words, grams = tables
    parts = [(words[2] + 2 * grams[5]) / 3, (grams[1] + grams[3] + grams[4]) / 3, words[1]]
    np.testing.assert_allclose(expected, np.stack([*parts, np.zeros(3)]), rtol=1e-6)


def test_gradients_reach_the_parts_alone(tables) -> None:
    def total(words, grams):
        return compose(words, grams, ROWS, IDS).sum()

    words, grams = jax.grad(total, (0, 1))(*tables)
    np.testing.assert_allclose(words[:, 0], [0, 1, 1 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(grams[:, 0], [0, 1 / 3, 0, 1 / 3, 1 / 3, 2 / 3, 0], rtol=1e-6)
    # What stands in for padding may not matter, not even when it is not finite.
    broken = (table.at[jnp.array([0, -1])].set(jnp.nan) for table in tables)
    assert math.isfinite(total(*broken))


def test_no_words_have_no_vectors(tables) -> None:
    ids = jnp.zeros((0, 4), jnp.int32)
    assert compose(*tables, jnp.zeros(0, jnp.int32), ids).shape == (0, 3)
