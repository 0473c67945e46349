"""word2vec against a loop over the pairs of a text, in float64."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_word2vec import (
    COUNTS,
    MODELS,
    UNUSED,
    D,
    K,
    V,
    decide,
    make,
    make_batch,
    make_tables,
    parts,
    plain,
)
from scipy.special import softmax

from dlcore.errors import InputError
from dlcore.models.embedding.objectives import OBJECTIVES, objective
from dlcore.models.embedding.updates import initial_sums, row_adagrad, word2vec_step
from dlcore.models.embedding.word2vec import ARCHITECTURES, Word2Vec
from dlcore.types import Mean, TrainState


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def fast(
    model: Word2Vec, tables: Any, batch: Any, others: np.ndarray
) -> tuple[Mean, list[tuple[str, np.ndarray, np.ndarray]]]:
    """The same by the model: the loss, and of each read the table, rows and slopes."""
    rows = jax.tree.map(np.asarray, model.rows(jax.tree.map(jnp.asarray, batch)))
    rows["others"] = others
    table_of = {"input": "input", "output": "output", "others": "output"}

    @jax.jit
    def loss(vectors: Any) -> tuple[jax.Array, Mean]:
        mean = model.loss(vectors, batch, others)
        return mean.total, mean

    vectors = {part: tables[table_of[part]][ids] for part, ids in rows.items()}
    slopes, mean = jax.grad(loss, has_aux=True)(vectors)
    named = [(table_of[part], rows[part], np.asarray(slopes[part])) for part in rows]
    return mean, named


def plain_adagrad(tables: Any, sums: Any, named: Any, rate: float) -> None:
    """In place: all squares first."""
    for table, rows, slopes in named:
        np.add.at(sums[table], rows, (slopes**2).mean(1, keepdims=True))
    for table, rows, slopes in named:
        root = np.sqrt(sums[table][rows] + 1e-10)
        np.add.at(tables[table], rows, -rate * slopes / root)


# An objective is told nothing of windows, so each pair of the two meets, but not all triples.
CASES = [
    *(
        pytest.param(
            *(kind, name, (1, 5, 20)[(i + j) % 3]), marks=[pytest.mark.slow] * ((i + j) % 2)
        )
        for i, kind in enumerate(ARCHITECTURES)
        for j, name in enumerate(OBJECTIVES)
    ),
    ("cbow_original", "full", 5),
    ("cbow_original", "hierarchical", 20),
    ("skip_gram_subwords", "negative_sampling", 5),
    ("cbow_subwords", "hierarchical", 5),
]


@pytest.mark.parametrize(("kind", "name", "window"), CASES)
def test_a_micro_batch_is_its_pairs(kind: str, name: str, window: int) -> None:
    model = make(kind, name, window)
    assert model.block == (40 if window == 20 else 16)
    tables, batch = make_tables(model), make_batch(model, 2, padding=window + 7)
    others = np.asarray(model.objective.others(jax.random.key(1)))
    mean, named = fast(model, tables, batch, others)
    total, count, slopes = plain(model, name, tables, batch, others)
    assert mean.weight == count > 20
    np.testing.assert_allclose(mean.total, total, rtol=1e-10)
    gradients = {table: np.zeros_like(values) for table, values in tables.items()}
    for table, ids, values in named:
        np.add.at(gradients[table], ids, values)
    for table in slopes:
        np.testing.assert_allclose(gradients[table], slopes[table], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("kind", MODELS)
def test_the_gradients_are_the_slopes_of_the_loss(kind: str, name: str) -> None:
    """By central differences, of the loop; all but the gradient that is original."""
    model = make(kind, name)
    tables, batch = make_tables(model), make_batch(model, 1, padding=3)
    others = np.arange(K)
    _, _, gradients = plain(model, name, tables, batch, others)
    for table, direction in make_tables(model, seed=1).items():
        ends = [
            plain(model, name, {**tables, table: tables[table] + h * direction}, batch, others)[0]
            for h in (1e-5, -1e-5)
        ]
        slope, given = (ends[0] - ends[1]) / 2e-5, (gradients[table] * direction).sum()
        same = abs(slope - given) < 1e-6 * abs(slope)
        assert same == (not model.original_gradient or table == "output")


def test_adagrad_of_rows_is_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    table, sums, rows = rng.normal(size=(V, D)), rng.random((V, 1)), rng.integers(0, UNUSED, 50)
    gradients = rng.normal(size=(50, D))
    expected, squares = {"": table.copy()}, {"": sums.copy()}
    plain_adagrad(expected, squares, [("", rows, gradients)], 0.3)
    got, accumulated = row_adagrad(*map(jnp.asarray, (table, sums, rows, gradients, 0.3)))
    np.testing.assert_allclose(got, expected[""], rtol=1e-12)
    np.testing.assert_allclose(accumulated, squares[""], rtol=1e-12)
    assert np.asarray(got)[UNUSED:].tobytes() == table[UNUSED:].tobytes()


def rate(step: jax.Array) -> jax.Array:
    return 0.3 / (1.0 + jnp.asarray(step, float))


def start(model: Word2Vec) -> TrainState:
    tables = {name: jnp.asarray(table) for name, table in make_tables(model).items()}
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, tables, {}, initial_sums(tables), jax.random.key(0))


@functools.cache
def make_step(kind: str, name: str) -> tuple[Word2Vec, Any]:
    model = make(kind, name)
    return model, jax.jit(word2vec_step(model, learning_rate=rate, micro_batch=32))


def bits(state: TrainState) -> list[bytes]:
    leaves = jax.tree.leaves((state.step, state.params, state.opt_state))
    return [np.asarray(leaf).tobytes() for leaf in leaves]


def noise_of(model: Word2Vec, state: TrainState, count: int) -> np.ndarray:
    """The other rows of each of the micro-batches of the next step, [count, K]."""
    key, exact = jax.random.fold_in(state.rng, state.step), model.objective.exact
    others = np.asarray(model.objective.others(key, 1 if exact else count))
    return np.tile(others, (count, 1)) if exact else others.reshape(count, -1)


STEPS = [
    ("skip_gram", "negative_sampling"),
    pytest.param("cbow_subwords", "hierarchical", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kind", "name"), STEPS)
def test_a_step_is_its_micro_batches(kind: str, name: str) -> None:
    model, step = make_step(kind, name)
    state = start(model)
    tables = make_tables(model)
    sums = {name: np.full((len(table), 1), 0.1) for name, table in tables.items()}
    for number in range(2):
        batch, total, count = make_batch(model, 6, padding=9, seed=number), 0.0, 0.0
        for part, others in enumerate(noise_of(model, state, 3)):
            reach = slice(32 * part, 32 * (part + 1) + 2 * model.window)
            micro = {leaf: array[reach] for leaf, array in batch.items()}
            mean, named = fast(model, tables, micro, others)
            total, count = total + mean.total, count + mean.weight
            plain_adagrad(tables, sums, named, rate(number))
        state, metrics = step(state, batch)
        np.testing.assert_allclose(metrics["loss"].total, total, rtol=1e-10)
        assert metrics["loss"].weight == count
        for table in tables:
            np.testing.assert_allclose(state.params[table], tables[table], rtol=1e-9)
            np.testing.assert_allclose(state.opt_state[table], sums[table], rtol=1e-9)
    assert state.step == 2


@pytest.mark.parametrize(("kind", "name"), STEPS)
def test_runs_repeat_and_resume_bit_for_bit(kind: str, name: str) -> None:
    model, step = make_step(kind, name)
    batches = [make_batch(model, 6, padding=9, seed=seed) for seed in range(5)]
    states, again = [start(model)], start(model)
    for batch in batches:
        states.append(step(states[-1], batch)[0])
        again, _ = step(again, batch)
    assert bits(again) == bits(states[-1]) != bits(states[-2])
    saved = jax.tree.map(np.asarray, (states[2].params, states[2].opt_state))
    later = start(model).replace(step=jnp.int32(2), params=saved[0], opt_state=saved[1])
    for batch in batches[2:]:
        later, _ = step(later, batch)
    assert bits(later) == bits(again)
    other, _ = step(start(model).replace(rng=jax.random.key(1)), batches[0])
    assert (bits(other) == bits(states[1])) == (name == "hierarchical")  # which has no noise


@pytest.mark.parametrize(("kind", "name"), STEPS)
def test_padding_changes_nothing(kind: str, name: str) -> None:
    model, step = make_step(kind, name)
    batch = make_batch(model, 6, padding=100)
    after, metrics = step(start(model), batch)
    nowhere = batch["sentences"] < 0
    for leaf, value in {"words": V - 1, "reach": 5}.items():
        got, same = step(start(model), {**batch, leaf: np.where(nowhere, value, batch[leaf])})
        assert bits(got) == bits(after)
        assert jax.tree.leaves(same) == jax.tree.leaves(metrics)
    got, nothing = step(start(model), {**batch, "sentences": np.full_like(nowhere, -1, int)})
    assert bits(got)[1:] == bits(start(model))[1:]
    assert nothing["loss"].total == nothing["loss"].weight == 0


def test_rows_that_no_batch_names_keep_their_bits() -> None:
    model, step = make_step("skip_gram", "negative_sampling")
    state, before, drawn = start(model), make_tables(model), set[int]()
    for seed in range(2):
        drawn |= set(noise_of(model, state, 3).flat)
        state, _ = step(state, make_batch(model, 6, padding=0, seed=seed))
    for table, used in {"input": {*range(UNUSED)}, "output": {*range(UNUSED)} | drawn}.items():
        after = np.asarray(state.params[table])
        kept = [row for row in range(V) if after[row].tobytes() == before[table][row].tobytes()]
        assert kept == [row for row in range(V) if row not in used]


HELD_OUT = [
    *(("skip_gram_subwords", name) for name in OBJECTIVES),
    ("cbow_mean", "full"),
    ("cbow_sum", "nce"),
]


@pytest.mark.parametrize(("kind", "name"), HELD_OUT)
def test_held_out_pairs_are_scored_by_the_definitions(kind: str, name: str) -> None:
    model, n = make(kind, name), 7
    rng, tables = np.random.default_rng(3), make_tables(model)
    queries = rng.integers(0, V, (n, 1 if model.architecture == "skip_gram" else 4))
    queries[::2, 2:] = -1
    batch = {
        "queries": queries,
        "targets": rng.integers(0, V, n),
        "noise": rng.integers(0, V, (n, K)),
        "weight": np.array([1, 1, 0, 1, 1, 0, 1]),
    }
    loss = nats = 0.0
    for query, target, noise, weight in zip(*batch.values(), strict=True):
        vector = sum(tables["input"][parts(model, word)].mean(0) for word in query[query >= 0])
        vector = vector if model.architecture == "cbow_sum" else vector / (query >= 0).sum()
        scores = tables["output"] @ vector
        one = decide(model.objective, name, scores, target, noise)[0]
        loss += weight * one
        exact = one if name == "hierarchical" else -np.log(softmax(scores)[target])
        nats += weight * exact
    got = jax.jit(model.held_out)(tables, batch)
    assert got["loss"].weight == got["nats"].weight == 5
    np.testing.assert_allclose(got["loss"].total, loss, rtol=1e-6)
    np.testing.assert_allclose(got["nats"].total, nats, rtol=1e-10)


def test_tables_start_small_and_with_rows_for_a_mesh() -> None:
    tables = make("skip_gram_subwords", "hierarchical").init(jax.random.key(0))
    assert {name: table.shape for name, table in tables.items()} == {
        "input": (64, D),
        "output": (64, D),
    }
    least, most = tables["input"].min(), tables["input"].max()
    assert -0.5 / D <= least < -0.1 and 0.1 < most <= 0.5 / D and not tables["output"].any()


def test_models_that_do_not_exist_are_refused() -> None:
    for options, message in (
        ({"architecture": "bag"}, "unknown architecture 'bag'; choose one of: cbow_mean"),
        ({"window": 0}, "a window of 0 and 4 features: give 1 or more of each"),
        ({"features": 0}, "a window of 5 and 0 features"),
        ({"architecture": "cbow_sum", "original_gradient": True}, "cbow_sum has only one"),
    ):
        with pytest.raises(InputError, match=message):
            Word2Vec(objective("full", COUNTS), **{"features": D, **options})
    with pytest.raises(InputError, match="micro-batches of 40 words are not a multiple of 16"):
        word2vec_step(make("skip_gram", "full"), learning_rate=rate, micro_batch=40)
