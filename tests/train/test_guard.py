"""Spikes under every layout, on four virtual devices: what changes, and that it can be resumed."""

import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest

from dlcore import runtime
from dlcore.train import gradient_step, guard
from dlcore.train.checkpoint import Checkpoints
from dlcore.train.spikes import RecentLosses, SpikeGuardedState
from dlcore.types import Mean

LAYOUTS = {
    "jit": lambda: runtime.layout("jit"),
    "pmap": lambda: runtime.layout("pmap"),
    "mesh": lambda: runtime.layout("mesh"),
    "fsdp": lambda: runtime.layout("mesh", mesh="data=2,fsdp=2"),
}
EVENTS = ["accepted", "spike", "skipped", "accepted", "spike", "accepted"]
MODEL, TX = networks.Network(), optax.adamw(1e-2)


def scaled_loss(params, model_state, batch, rng):
    loss, aux = networks.make_loss(MODEL)(params, model_state, batch, rng)
    return Mean(loss.total * batch["factor"].mean(), loss.weight), aux


def make_state():
    variables = MODEL.init(jax.random.key(0), jnp.zeros((1, 16)))
    state = SpikeGuardedState.create(variables, TX, jax.random.key(1))
    losses = jnp.asarray(np.random.default_rng(0).normal(2, 0.4, 128), jnp.float32)
    return state.replace(recent=state.recent.replace(losses=losses, count=jnp.int32(128)))


def eventful_batch(number):
    batch = networks.batch(number)
    factor = {"accepted": 1, "spike": 100, "skipped": np.nan}[EVENTS[number]]
    return batch | {"factor": np.full(32, factor, np.float32)}


@functools.cache
def life(name):
    """The compiled step and the states before and after each step, as NumPy arrays."""
    layout = LAYOUTS[name]()
    compiled = runtime.compile_step(guard(gradient_step(scaled_loss, TX)), layout)
    state = layout.initialise(make_state)
    states, events = [networks.arrays(state)], []
    for number in range(len(EVENTS)):
        state, metrics = compiled(state, eventful_batch(number))
        totals = {name: float(metrics[name].total) for name in ("spikes", "skipped")}
        events.append((totals["spikes"] and "spike") or (totals["skipped"] and "skipped"))
        states.append(jax.tree.map(np.copy, networks.arrays(state)))
    assert [event or "accepted" for event in events] == EVENTS
    return compiled, states


every_layout = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in ("pmap", "mesh"))) for name in LAYOUTS],
)


@every_layout
def test_a_spike_changes_the_counter_and_the_allowance_alone(name):
    _, states = life(name)
    for number, event in enumerate(EVENTS):
        old, new = states[number : number + 2]
        left = old.recent.allowance - 36 * (event == "spike")
        if event == "accepted":
            assert new.recent.losses[-1] != old.recent.losses[-1]
        else:
            recent = old.recent.replace(allowance=left)
            networks.assert_equal(new, old.replace(step=old.step + 1, recent=recent))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("pmap", marks=pytest.mark.slow),
        pytest.param("mesh", marks=pytest.mark.slow),
        "fsdp",
    ],
)
def test_the_memory_is_the_same_in_every_layout(name):
    for state, reference in zip(life(name)[1], life("jit")[1], strict=True):
        networks.assert_close(state, reference, tolerance=2e-6)


@every_layout
def test_a_run_resumed_after_a_spike_equals_the_uninterrupted_one(name, tmp_path):
    compiled, states = life(name)
    layout = LAYOUTS[name]()
    abstract = layout.abstract(make_state)
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    checkpoints = Checkpoints(tmp_path / "checkpoints", {})
    key = jax.random.wrap_key_data(states[2].rng)
    checkpoints.save(2, jax.device_put(states[2].replace(rng=key), places), {})
    checkpoints.wait()
    state = checkpoints.restore(abstract).state
    assert isinstance(state.recent, RecentLosses) and int(state.recent.allowance) == 9 * 36
    for number in range(2, len(EVENTS)):
        state, _ = compiled(state, eventful_batch(number))
    checkpoints.close()
    networks.assert_equal(state, states[-1])
