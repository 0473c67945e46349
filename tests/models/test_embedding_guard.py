"""Steps on tables guard themselves: what is not finite changes nothing, and the rest goes on."""

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.models.embedding import (
    GloveTiles,
    Word2Vec,
    glove_step,
    glove_tables,
    initial_squares,
    initial_sums,
    objective,
    word2vec_step,
)
from dlcore.train import guard
from dlcore.types import TrainState


def state_of(tables, opt_state):
    return TrainState(jnp.zeros((), jnp.int32), tables, {}, opt_state, jax.random.key(0))


def test_a_bad_micro_batch_of_words_changes_nothing():
    model = Word2Vec(objective("hierarchical", np.arange(1, 9)), features=4, window=2)
    tables = model.init(jax.random.key(1))
    tables["input"] = tables["input"].at[7].set(jnp.nan)
    good, bad = np.tile(np.arange(4, dtype=np.int32), 8), np.full(32, 7, np.int32)
    words = np.pad(np.concatenate([good, bad]), 2)
    sentences = np.pad(np.zeros(64, np.int32), 2, constant_values=-1)
    batch = {"words": words, "sentences": sentences, "reach": np.full(68, 2, np.int32)}
    step = guard(word2vec_step(model, learning_rate=lambda _: jnp.float32(0.1), micro_batch=32))
    state, metrics = jax.jit(step)(state_of(tables, initial_sums(tables)), batch)
    assert metrics["skipped"].compute() == 0.5 and np.isfinite(metrics["loss"].compute())
    assert state.step == 1 and np.isfinite(state.params["output"]).all()
    assert np.abs(state.params["output"]).max() > 0
    for name, before in initial_sums(tables).items():
        assert np.isfinite(state.opt_state[name]).all()
        assert name == "output" or np.array_equal(state.opt_state[name][7], before[7])


def test_a_bad_square_of_cells_changes_nothing():
    rows, columns = (x.astype(np.int32) for x in np.nonzero(np.ones((8, 8))))
    tiles = GloveTiles(
        rows, columns, np.ones(64, np.float32), vocabulary_size=8, seed=0, tile=4, density=0.0
    )
    batch = tiles.batch(0)
    batch["values"] = np.where(
        (np.arange(len(batch["values"])) == 1)[:, None, None], np.inf, batch["values"]
    ).astype(np.float32)
    tables = glove_tables(jax.random.key(0), vocabulary_size=8, dimension=3)
    step = jax.jit(guard(glove_step()))
    state, metrics = step(state_of(tables, initial_squares(tables)), batch)
    assert metrics["skipped"].compute() == 1 / len(batch["values"])
    assert all(np.isfinite(leaf).all() for leaf in (*state.params, *state.opt_state))
    without = {**batch, "values": np.where(np.isinf(batch["values"]), 0, batch["values"])}
    expected, _ = step(state_of(tables, initial_squares(tables)), without)
    for got, wanted in zip(state.params, expected.params, strict=True):
        np.testing.assert_array_equal(got, wanted)
