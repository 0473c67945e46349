"""The embedding reads its table and drops a word everywhere in a row at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import parallel
from dlcore.errors import InputError
from dlcore.nn.embedding import Embedding

V, D = 9, 4
TOKENS = np.array([[3, 1, 3, 3], [8, 0, 8, 3], [1, 2, 4, 5], [3, 1, 3, 6]], np.int32)
TABLE = np.random.default_rng(0).normal(size=(V, D)).astype(np.float32)
VARIABLES = {"params": {"embedding": TABLE}}


def drop(tokens, rate=0.5, seed=1):
    rngs = {"dropout": jax.random.key(seed)}
    return Embedding(V, D, dropout=rate).apply(VARIABLES, tokens, train=True, rngs=rngs)


def test_is_a_product_with_one_hot_rows():
    y = Embedding(V, D).apply(VARIABLES, TOKENS)
    np.testing.assert_array_equal(y, np.eye(V)[np.asarray(TOKENS)] @ np.asarray(TABLE))
    wide = Embedding(1000, 100).init(jax.random.key(0), TOKENS)["params"]["embedding"]
    assert wide.shape == (1000, 100)
    np.testing.assert_allclose((wide**2).sum(1).mean(), 1, rtol=0.02)


def test_gradient_adds_up_where_words_repeat():
    gradient = jax.grad(lambda v: Embedding(V, D).apply(v, TOKENS).sum())(VARIABLES)
    counts = np.bincount(np.asarray(TOKENS).ravel(), minlength=V)
    np.testing.assert_array_equal(
        gradient["params"]["embedding"], counts[:, None] * np.ones((1, D))
    )


def test_unknown_ids_are_loud():
    assert np.isnan(jax.jit(Embedding(V, D).apply)(VARIABLES, jnp.array([[V]]))).all()


def test_a_word_is_dropped_everywhere_in_its_row():
    tokens = jnp.tile(jnp.arange(V), (200, 3))
    y = drop(tokens)
    kept = np.asarray(y / TABLE[tokens])
    np.testing.assert_allclose(np.unique(kept.round(5)), [0, 2])
    kept = kept[..., 0].reshape(200, 3, V).round(5)
    assert (kept == kept[:, :1]).all()
    rows = kept[:, 0] / 2
    assert abs(rows.mean() - 0.5) < 3 * 0.5 / np.sqrt(rows.size)
    # Rows and words are dropped independently.
    correlation = np.corrcoef(rows.T)[~np.eye(V, dtype=bool)]
    assert np.abs(correlation).max() < 4 / np.sqrt(200)
    assert len(np.unique(rows, axis=0)) > 100
    assert (drop(tokens, seed=2) != y).any()


def test_edges():
    np.testing.assert_array_equal(drop(TOKENS, 0.0), TABLE[TOKENS])
    np.testing.assert_array_equal(drop(TOKENS, 1.0), jnp.zeros((4, 4, D)))
    rngs = {"dropout": jax.random.key(0)}
    gradient = jax.grad(
        lambda v: Embedding(V, D, dropout=1.0).apply(v, TOKENS, train=True, rngs=rngs).sum()
    )(VARIABLES)
    assert not gradient["params"]["embedding"].any()
    quiet = Embedding(V, D, dropout=0.5).apply(VARIABLES, TOKENS)
    np.testing.assert_array_equal(quiet, TABLE[TOKENS])
    with pytest.raises(InputError, match="dropout rate -0.5 is not a probability"):
        drop(TOKENS, -0.5)


@pytest.mark.parametrize("offset, stride", [(2, 1), (1, 2)])
def test_micro_batches_and_longer_rows(offset, stride):
    rows = jnp.array([offset, offset + stride])
    longer = jnp.concatenate([TOKENS, TOKENS], axis=1)

    def part(offset):
        with parallel.part_of_batch(parallel.Part(offset, stride)):
            return drop(longer[rows])

    np.testing.assert_array_equal(jax.jit(part)(offset)[:, :4], drop(TOKENS)[rows])
