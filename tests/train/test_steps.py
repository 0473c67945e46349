import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest

from dlcore.train import gradient_step, guard, health
from dlcore.types import Aux, Mean, TrainState


def linear_loss(params, model_state, batch, rng):
    error = batch["x"] @ params["w"] - batch["y"]
    return Mean.of(error**2, batch["weight"]), Aux(model_state, {"error": Mean.of(error)})


def linear_problem(seed=0, size=8):
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(size, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    return {"x": x, "y": x @ w + 1, "weight": np.ones(size, np.float32)}


def test_one_step_of_sgd_by_hand():
    batch = linear_problem()
    tx = optax.sgd(0.1)
    state = TrainState.create({"params": {"w": jnp.zeros(3)}}, tx, jax.random.key(0))
    new, metrics = jax.jit(gradient_step(linear_loss, tx))(state, batch)
    gradient = -2 * batch["x"].T @ batch["y"] / 8
    np.testing.assert_allclose(new.params["w"], -0.1 * gradient, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"].compute(), np.mean(batch["y"] ** 2), rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"].compute(), np.linalg.norm(gradient), rtol=1e-6)
    assert int(new.step) == 1 and set(metrics) == {"loss", "grad_norm", "error"}


@pytest.mark.parametrize("accumulate", [1, 4])
def test_padding_rows_change_nothing(accumulate):
    batch = linear_problem()
    padded = {
        name: np.concatenate([value, np.full_like(value, 99)]) for name, value in batch.items()
    }
    padded["weight"] = np.concatenate([np.ones(8), np.zeros(8)]).astype(np.float32)
    tx = optax.adam(0.1)
    state = TrainState.create({"params": {"w": jnp.zeros(3)}}, tx, jax.random.key(0))
    step = jax.jit(gradient_step(linear_loss, tx, accumulate=accumulate))
    plain, metrics = step(state, batch)
    also, padded_metrics = step(state, padded)
    networks.assert_close(also.params, plain.params)
    networks.assert_close(padded_metrics["loss"], metrics["loss"])


@pytest.mark.parametrize("accumulate", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_accumulated_parts_equal_the_whole_batch_dropout_included(accumulate):
    model, tx = networks.Network(norm=False), optax.adamw(1e-2)
    state = networks.make_state(model, tx)
    loss_fn = networks.make_loss(model)
    whole = jax.jit(gradient_step(loss_fn, tx))
    parts = jax.jit(gradient_step(loss_fn, tx, accumulate=accumulate))
    left = right = state
    for number in range(3):
        batch = networks.batch(number, 128)
        (left, left_metrics), (right, right_metrics) = whole(left, batch), parts(right, batch)
        networks.assert_close(right_metrics["loss"].compute(), left_metrics["loss"].compute())
    networks.assert_close(right, left)


def test_weights_that_differ_between_parts_still_give_the_mean_over_the_whole():
    batch = linear_problem(size=8)
    batch["weight"] = np.array([1, 0, 2, 0, 0, 0.5, 3, 1], np.float32)
    tx = optax.sgd(0.1)
    state = TrainState.create({"params": {"w": jnp.ones(3)}}, tx, jax.random.key(0))
    whole, _ = jax.jit(gradient_step(linear_loss, tx))(state, batch)
    parts, _ = jax.jit(gradient_step(linear_loss, tx, accumulate=4))(state, batch)
    networks.assert_close(parts.params, whole.params)


def test_the_model_state_passes_through_all_parts():
    model, tx = networks.Network(rate=0.0), optax.sgd(0.0)
    state = networks.make_state(model, tx)
    batch = networks.batch(0, 32)
    new, _ = jax.jit(gradient_step(networks.make_loss(model), tx, accumulate=2))(state, batch)
    expected = np.zeros(32, np.float32)
    kernel = state.params["Dense_0"]["kernel"]
    for part in (batch["x"][::2], batch["x"][1::2]):
        expected = 0.9 * expected + 0.1 * np.mean(part @ kernel, 0)
    np.testing.assert_allclose(
        new.model_state["batch_stats"]["BatchNorm_0"]["mean"], expected, rtol=1e-5, atol=1e-7
    )


def test_the_key_of_a_step_depends_on_the_run_and_on_the_step():
    model, tx = networks.Network(norm=False, rate=0.5), optax.sgd(0.0)
    step = jax.jit(gradient_step(networks.make_loss(model), tx))
    state = networks.make_state(model, tx)
    batch = networks.batch(0)
    losses = []
    for start in (state, state.replace(step=state.step + 1), state.replace(rng=jax.random.key(9))):
        losses.append(float(step(start, batch)[1]["loss"].compute()))
    assert len(set(losses)) == 3
    assert float(step(state, batch)[1]["loss"].compute()) == losses[0]


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_bad_batch_changes_only_the_step_counter(poison):
    model, tx = networks.Network(), optax.adamw(1e-2)
    step = jax.jit(guard(gradient_step(networks.make_loss(model), tx)))
    state, metrics = step(networks.make_state(model, tx), networks.batch(0))
    assert float(metrics["skipped"].compute()) == 0
    bad = networks.batch(1)
    bad["x"][3, 2] = poison
    new, metrics = step(state, bad)
    networks.assert_equal(new, state.replace(step=state.step + 1))
    assert float(metrics["skipped"].compute()) == 1
    assert float(metrics["loss"].weight) == 0 and float(metrics["loss"].total) == 0


def test_a_finite_loss_with_a_bad_gradient_is_skipped_too():
    def loss_fn(params, model_state, batch, rng):
        # The value is finite at 0; the derivative of the square root is not.
        return Mean.of(jnp.sqrt(params["w"]) + 1), Aux(model_state, {})

    tx = optax.sgd(0.1)
    state = TrainState.create({"params": {"w": jnp.zeros(2)}}, tx, jax.random.key(0))
    new, metrics = jax.jit(guard(gradient_step(loss_fn, tx)))(state, {"x": np.zeros(2)})
    networks.assert_equal(new.params, state.params)
    assert float(metrics["skipped"].compute()) == 1


@pytest.mark.parametrize(
    "tx",
    [
        optax.scale(jnp.nan),
        optax.add_decayed_weights(1e38),
        optax.stateless(lambda updates, _: jax.tree.map(lambda u: u / jnp.abs(u), updates)),
    ],
    ids=["rate", "overflow", "no slope"],
)
@pytest.mark.parametrize("only", ["matrix", "vector", "scalar"])
def test_new_parameters_that_are_not_finite_are_never_taken(tx, only):
    params = {"matrix": jnp.ones((3, 2)), "vector": jnp.ones(3), "scalar": jnp.ones(())}
    params = jax.tree.map(lambda leaf: 4 * leaf, params)

    def loss_fn(params, model_state, batch, rng):
        return Mean.of(batch["x"] * params[only].sum()), Aux(model_state, {})

    masked = optax.masked(tx, {name: name == only for name in params})
    state = TrainState.create({"params": params}, masked, jax.random.key(0))
    step = gradient_step(loss_fn, masked)
    batch = {"x": np.zeros(1, np.float32)}
    unguarded, metrics = step(state, batch)
    assert not jnp.isfinite(unguarded.params[only]).any()
    assert all(jnp.isfinite(mean.total) for mean in metrics.values())
    new, metrics = jax.jit(guard(step))(state, batch)
    networks.assert_equal(new, state.replace(step=state.step + 1))
    assert float(metrics["skipped"].compute()) == 1


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 4), (0, 3)])
def test_one_element_that_is_not_finite_is_found_and_the_largest_finite_ones_are_not(shape):
    largest = jnp.full(shape, jnp.finfo(jnp.float32).max)
    assert jax.jit(health._zero_if_finite)(largest) == 0
    for index in np.ndindex(shape):
        for value in (jnp.nan, jnp.inf, -jnp.inf):
            assert jnp.isnan(health._zero_if_finite(largest.at[index].set(value)))


@pytest.mark.parametrize("choose", [health._select, health._branch, health._choose])
@pytest.mark.parametrize("first", [True, False])
def test_every_way_to_choose_a_state_passes_its_bits_on(choose, first):
    left = networks.make_state(networks.Network(), optax.adam(0.1))
    right = jax.tree.map(lambda leaf: leaf + 1, left.replace(rng=jax.random.key_data(left.rng)))
    right = right.replace(rng=jax.random.key(7))
    poisoned = right.replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, right.params))
    chosen = jax.jit(choose)(first, left, poisoned)
    networks.assert_equal(chosen, left if first else poisoned)


def test_accumulate_below_one_raises():
    with pytest.raises(ValueError, match="accumulate is 0"):
        gradient_step(linear_loss, optax.sgd(0.1), accumulate=0)
