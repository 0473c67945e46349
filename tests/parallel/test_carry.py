"""Rows that hand a carry to the next batch: the same in every layout, and under accumulation."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest

from dlcore import runtime
from dlcore.nn import Dropout
from dlcore.train import evaluate, gradient_step
from dlcore.train.checkpoint import Checkpoints
from dlcore.types import Aux, Mean, TrainState

ROWS, WIDTH = 16, 8
LAYOUTS = {
    "jit": lambda: runtime.layout("jit"),
    "pmap": lambda: runtime.layout("pmap"),
    "mesh": lambda: runtime.layout("mesh"),
    "fsdp": lambda: runtime.layout("mesh", mesh="fsdp=4"),
}


class Leaky(nn.Module):
    """h' = tanh(h U + x W), h carried from batch to batch."""

    @nn.compact
    def __call__(self, h, x, train=False):
        h = nn.tanh(nn.Dense(WIDTH)(h) + nn.Dense(WIDTH)(x))
        return h, nn.Dense(3)(Dropout(0.25)(h, train))


MODEL, TX = Leaky(), optax.adam(1e-2)


def forward(params, batch, train=False, rng=None):
    start = jnp.where(batch["reset"][:, None], 0, batch["carry"]["h"])
    rngs = {"dropout": rng} if train else {}
    return MODEL.apply({"params": params}, start, batch["x"], train, rngs=rngs)


def losses_of(params, batch, **how):
    h, out = forward(params, batch, **how)
    loss = optax.softmax_cross_entropy_with_integer_labels(out, batch["label"])
    return Mean.of(loss, batch["weight"]), {"h": h}


def loss_fn(params, model_state, batch, rng):
    loss, carry = losses_of(params, batch, train=True, rng=rng)
    return loss, Aux(model_state, {}, carry)


def metric_fn(state, batch):
    loss, carry = losses_of(state.params, {**batch, "carry": state.carry})
    return {"loss": loss}, carry


def make_state():
    variables = MODEL.init(jax.random.key(0), jnp.zeros((1, WIDTH)), jnp.zeros((1, 4)))
    carry = {"h": jnp.zeros((ROWS, WIDTH))}
    return TrainState.create(variables, TX, jax.random.key(1), carry)


def batch(step):
    rng = np.random.default_rng(step)
    return {
        "x": rng.normal(size=(ROWS, 4)).astype(np.float32),
        "label": rng.integers(0, 3, ROWS).astype(np.int32),
        "weight": np.ones(ROWS, np.float32),
        "reset": np.full(ROWS, step == 0) | (np.arange(ROWS) == step),
    }


def steps(layout, count=4, accumulate=1, state=None):
    step = gradient_step(loss_fn, TX, accumulate=accumulate)
    compiled = runtime.compile_step(step, layout)
    state = layout.initialise(make_state) if state is None else state
    for number in range(int(state.step), count):
        state, metrics = compiled(state, batch(number))
    assert compiled.traces == 1
    return state, float(metrics["loss"].compute())


@functools.cache
def steps_of_one_device():
    """The state and the loss that every layout must reach."""
    state, loss = steps(runtime.layout("jit"))
    return networks.arrays(state), loss


QUICK = {("fsdp", 4)}


@pytest.mark.parametrize(
    ("name", "accumulate"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] * (case not in QUICK))
        for case in itertools.product(LAYOUTS, (1, 4))
    ],
)
def test_the_carry_is_that_of_one_device(name, accumulate):
    reference, reference_loss = steps_of_one_device()
    state, loss = steps(LAYOUTS[name](), accumulate=accumulate)
    assert loss == pytest.approx(reference_loss, abs=1e-6)
    networks.assert_close(state, reference)
    assert state.carry["h"].shape == (ROWS, WIDTH)


@pytest.mark.parametrize("name", ["pmap", "mesh", "fsdp"])
def test_each_device_holds_the_carry_of_its_rows(name):
    state, _ = steps(LAYOUTS[name](), count=1)
    shards = state.carry["h"].addressable_shards
    assert {shard.data.shape for shard in shards} == {(ROWS // 4, WIDTH)}


def test_the_carry_matters_and_a_reset_drops_it():
    state = make_state()
    later = state.replace(carry={"h": jnp.ones((ROWS, WIDTH))})
    metrics, _ = metric_fn(state, batch(3))
    assert float(metric_fn(later, batch(3))[0]["loss"].compute()) != float(
        metrics["loss"].compute()
    )
    fresh = batch(3) | {"reset": np.ones(ROWS, bool)}
    for one in (state, later):
        h = metric_fn(one, fresh)[1]["h"]
        np.testing.assert_array_equal(h, metric_fn(state, fresh)[1]["h"])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "pmap")) for name in LAYOUTS]
)
def test_an_evaluation_hands_the_carry_on_and_leaves_the_state(name):
    layout = LAYOUTS[name]()
    compiled = runtime.compile_evaluation(metric_fn, layout)
    state, _ = steps(layout, count=2)
    before = np.asarray(state.carry["h"])
    found = evaluate(compiled, state, map(batch, range(4)))["loss"]
    np.testing.assert_array_equal(before, state.carry["h"])

    params, carry, total = jax.device_get(state.params), before, 0.0
    for number in range(4):
        loss, new = losses_of(params, {**batch(number), "carry": {"h": carry}})
        total, carry = total + float(loss.compute()), new["h"]
    assert found == pytest.approx(total / 4, abs=1e-6)


def test_a_checkpoint_holds_the_carry(tmp_path):
    layout = runtime.layout("jit")
    whole, _ = steps_of_one_device()
    half, _ = steps(layout, count=2)
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.save(2, half, {})
    checkpoints.wait()
    restored = checkpoints.restore(layout.abstract(make_state)).state
    checkpoints.close()
    resumed, _ = steps(layout, state=restored)
    jax.tree.map(np.testing.assert_array_equal, resumed.carry, whole.carry)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
