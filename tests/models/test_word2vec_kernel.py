"""The C function of word2vec's step is XLA's operations, with any number of threads."""

import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import native
from dlcore.models.embedding import Word2Vec, initial_sums, kernel, objective, word2vec_step
from dlcore.types import TrainState

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None or jax.default_backend() != "cpu", reason="needs a C compiler"
)
V, MICRO, COUNT = 50, 256, 3
MODELS = {
    "skip_gram": {},
    # Rows of one vector, of several, and of parts of one; noise of parts of a vector too.
    "skip_gram_wide": {"features": 100, "window": 5, "samples": 32},
    "skip_gram_far": {"features": 16, "window": 20, "samples": 70},
    "cbow_mean": {"architecture": "cbow_mean", "features": 60},
    "cbow_sum": {"architecture": "cbow_sum", "samples": 9},
    "cbow_original": {"architecture": "cbow_mean", "original_gradient": True},
}


def make(name: str) -> Word2Vec:
    options = {"features": 7, "window": 3, "samples": 5, **MODELS[name]}
    noise = objective("negative_sampling", np.arange(1, V + 1), samples=options.pop("samples"))
    return Word2Vec(noise, **options)


def micro(model: Word2Vec) -> int:
    return MICRO if model.window < 10 else 2 * model.sharing


def make_batch(model: Word2Vec, seed: int = 0) -> dict[str, np.ndarray]:
    rng, size = np.random.default_rng(seed), COUNT * micro(model) + 2 * model.window
    sentences = np.cumsum(rng.random(size) < 0.1)
    sentences[: model.window] = sentences[-50:] = -1
    sentences[100:140] = -1
    batch = {
        "words": np.where(sentences < 0, 0, rng.integers(0, V, size)),
        "sentences": sentences,
        "reach": rng.integers(1, model.window + 1, size),
    }
    return {part: leaf.astype(np.int32) for part, leaf in batch.items()}


def start(model: Word2Vec) -> TrainState:
    keys = jax.random.split(jax.random.key(1))
    tables = {
        name: table + 0.3 * jax.random.normal(key, table.shape)
        for key, (name, table) in zip(keys, model.init(jax.random.key(0)).items(), strict=True)
    }
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, tables, {}, initial_sums(tables), jax.random.key(2))


def make_step(model: Word2Vec) -> Any:
    # A new function each time, since what is traced depends on the surroundings.
    rate = word2vec_step(model, learning_rate=lambda _: jnp.float32(0.3), micro_batch=micro(model))
    return jax.jit(rate)


def taken(model: Word2Vec, state: TrainState, *batches: dict[str, np.ndarray]) -> Any:
    step = make_step(model)
    for batch in batches:
        state, metrics = step(state, batch)
    return jax.tree.map(np.asarray, (state.params, state.opt_state, metrics))


def test_the_kernel_is_called() -> None:
    model = make("skip_gram")
    state, batch = start(model), make_batch(model)
    assert "ffi_call" in str(make_step(model).trace(state, batch).jaxpr)
    with native.only_xla():
        assert "ffi_call" not in str(make_step(model).trace(state, batch).jaxpr)


QUICK = {"skip_gram_wide", "cbow_sum", "cbow_original"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in MODELS]
)
def test_the_kernel_is_the_operations(name: str) -> None:
    model = make(name)
    batches = [make_batch(model, seed) for seed in range(2)]
    got = taken(model, start(model), *batches)
    with native.only_xla():
        expected = taken(model, start(model), *batches)
    assert got[2]["loss"].weight == expected[2]["loss"].weight > 100
    assert got[2]["skipped"].total == 0
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)
    moved = np.abs(got[0]["output"] - np.asarray(start(model).params["output"])).max()
    assert moved > 0.1


@pytest.mark.parametrize("name", ["skip_gram_wide", "cbow_mean"])
def test_no_bit_depends_on_threads(name: str) -> None:
    model = make(name)
    state, batch = start(model), make_batch(model)
    noise = model.objective.others(jax.random.key(3), COUNT * model.groups(micro(model)))

    def once(threads: int) -> list[bytes]:
        found = jax.jit(
            lambda state: kernel.step(
                model, state.params, state.opt_state, batch, noise, 0.3,
                micro_batch=micro(model), threads=threads,
            )
        )(state)  # fmt: skip
        return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found)]

    first = once(1)
    assert once(1) == once(2) == once(2) == once(5) == first


def test_a_run_goes_on_bit_for_bit() -> None:
    model = make("cbow_mean")
    batches = [make_batch(model, seed) for seed in range(4)]
    step, states = make_step(model), [start(model)]
    for batch in batches:
        states.append(step(states[-1], batch)[0])
    params, sums = jax.tree.map(np.asarray, (states[2].params, states[2].opt_state))
    again = start(model).replace(step=jnp.int32(2), params=params, opt_state=sums)
    for batch in batches[2:]:
        again, _ = step(again, batch)
    for one, other in zip(
        jax.tree.leaves((again.params, again.opt_state)),
        jax.tree.leaves((states[4].params, states[4].opt_state)),
        strict=True,
    ):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.mark.parametrize("architecture", ["skip_gram", "cbow_mean"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_changes_nothing(architecture: str, value: float) -> None:
    model = make(architecture)
    state, batch = start(model), make_batch(model)
    bad = 7
    batch["words"][batch["words"] == bad] = bad + 1
    middle = slice(MICRO + 2 * model.window, MICRO + 30)
    without = {**batch, "sentences": batch["sentences"].copy()}
    without["sentences"][MICRO + model.window : 2 * MICRO + model.window] = -1
    batch["words"][middle] = bad
    batch["sentences"][middle] = 10_000
    state.params["input"] = state.params["input"].at[bad].set(value)
    tables, sums, metrics = taken(model, state, batch)
    assert metrics["skipped"].compute() == np.float32(1 / COUNT)
    assert np.isfinite(metrics["loss"].compute()) and np.isfinite(tables["output"]).all()
    with native.only_xla():
        expected = taken(model, state, batch)
    for one, other in zip(
        jax.tree.leaves((tables, sums)), jax.tree.leaves(expected[:2]), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


def test_without_a_compiler_the_operations_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("skip_gram")
    state, batch = start(model), make_batch(model)
    monkeypatch.setattr(native, "registered", native.registered.__wrapped__)
    monkeypatch.setenv("CC", "/no/such/compiler")
    with pytest.warns(RuntimeWarning, match="word2vec.c cannot be compiled by /no/such/compiler"):
        assert "ffi_call" not in str(make_step(model).trace(state, batch).jaxpr)
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    assert "ffi_call" not in str(make_step(model).trace(state, batch).jaxpr)


def test_tables_on_a_mesh_have_no_kernel() -> None:
    model = make("skip_gram")
    mesh = jax.make_mesh((2,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    cut = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("model", None))
    state, batch = start(model), make_batch(model)
    state = state.replace(params=jax.device_put(state.params, cut))
    assert "ffi_call" not in str(make_step(model).trace(state, batch).jaxpr)
