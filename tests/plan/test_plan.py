"""Plans of compiled steps against costs counted by hand."""

import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dlcore.errors import InputError
from dlcore.plan.chips import CHIPS, Chip, chip_of, parse_chip
from dlcore.plan.hlo import parse
from dlcore.plan.step import Plan, bytes_per_device, expect, plan, step_flops
from dlcore.plan.table import render

P = PartitionSpec
EVERYWHERE = P()
ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS, WIDTH, LAYERS, N = 64, 48, 3, 4


class State(NamedTuple):
    params: jax.Array
    opt_state: jax.Array
    rng: jax.Array


def step(state, batch):
    """One step with momentum on a net of `LAYERS` equal layers, in a loop."""

    def loss(w):
        def layer(x, w):
            return jnp.tanh(x @ w), None

        return jnp.sum(jax.lax.scan(layer, batch["x"], w)[0] ** 2)

    opt_state = 0.9 * state.opt_state + jax.grad(loss)(state.params)
    return State(state.params - 0.1 * opt_state, opt_state, state.rng), {}


def make_mesh():
    return jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def arguments(mesh, spec=EVERYWHERE):
    """The shapes of (state, batch): parameters by `spec`, rows over "data"."""

    def at(shape, spec, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    key = jax.eval_shape(lambda: jax.random.key(0)).dtype
    w = (LAYERS, WIDTH, WIDTH)
    state = State(at(w, spec), at(w, spec), at((), P(), key))
    return state, {"x": at((ROWS, WIDTH), P("data"))}


def lowered(state, batch):
    places = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(step, donate_argnums=0, out_shardings=(places, None)).lower(state, batch)


def make_plan():
    mesh = make_mesh()
    state, batch = arguments(mesh)
    flops = step_flops(step, state, batch)
    return plan(lowered(state, batch), state, batch, mesh=mesh, model_flops=flops)


@pytest.fixture(scope="module")
def replicated():
    return make_plan()


def test_bytes_by_hand(replicated):
    parameters = 4 * LAYERS * WIDTH * WIDTH
    assert replicated.parameter_bytes == replicated.optimizer_bytes == parameters
    assert replicated.other_bytes == 8  # the key
    assert replicated.batch_bytes == 4 * ROWS // 2 * WIDTH
    held = 2 * parameters + 8 + replicated.batch_bytes
    # Its activations of each layer, and its gradient; the new state is written over the old.
    least = 4 * LAYERS * ROWS // 2 * WIDTH + parameters
    assert replicated.temporary_bytes >= least
    assert replicated.peak_bytes == pytest.approx(held + replicated.temporary_bytes, abs=200)


def test_cut_parameters_count_their_part():
    mesh = make_mesh()
    state, batch = arguments(mesh, P(None, "model", "data"))
    assert bytes_per_device(state.params) == 4 * LAYERS * WIDTH * WIDTH // N
    assert bytes_per_device({"whole": jnp.zeros((3, 5)), "host": jnp.zeros(2, jnp.int8)}) == 62


def test_flops_count_each_round_on_each_device(replicated):
    """Forward, and by inputs and weights backward, but no gradient by the first layer's input."""
    forward = 2 * ROWS * WIDTH * WIDTH * LAYERS
    assert replicated.model_flops * N == 3 * forward
    # Nothing is cut over "model": two devices compute the same.
    assert replicated.flops == pytest.approx(3 * forward / 2, rel=0.1)


def test_flops_of_convolutions():
    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
        )

    x = jax.ShapeDtypeStruct((2, 10, 10, 8), jnp.float32)
    w = jax.ShapeDtypeStruct((3, 3, 4, 6), jnp.float32)
    costs = plan(jax.jit(convolve).lower(x, w), State((), (), ()), (x, w))
    assert costs.model_flops == 2 * (2 * 8 * 8 * 6) * (3 * 3 * 4)


def test_communication_of_data_parallel(replicated):
    kinds = {(one.kind, axes) for one, axes in replicated.collectives}
    assert kinds == {("all-reduce", ("data",))}
    assert replicated.sent_bytes == 4 * LAYERS * WIDTH * WIDTH  # 2 (n - 1)/n of it, n = 2


def test_a_single_device_sends_nothing():
    state, batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments(make_mesh())
    )
    low = jax.jit(step, donate_argnums=0).lower(state, batch)
    single = plan(low, state, batch)
    assert (single.devices, single.collectives, single.sent_bytes) == (1, (), 0)
    # Without a count by the caller, the products of the compiled program are the model's.
    assert single.model_flops == step_flops(step, state, batch)
    assert "none" in render(single) and "Expected" not in render(single)


def test_rematerialisation_is_planned_as_accelerators_do_it():
    """XLA's CPU compiler undoes it outside of loops; see `plan`."""

    def net(state, batch, pair):
        def loss(w):
            x = batch["x"]
            for _ in range(4):
                x = pair(x, w)
            return jnp.sum(x**2)

        return State(jax.grad(loss)(state.params), state.opt_state, state.rng), {}

    def pair(x, w):
        return jnp.tanh(jnp.tanh(jnp.tanh(x @ w[0]) @ w[1]) @ w[2])

    w = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), jnp.float32)
    state = State(w, w, jax.ShapeDtypeStruct((), jnp.float32))
    batch = {"x": jax.ShapeDtypeStruct((4096, WIDTH), jnp.float32)}
    plain, again = (
        plan(jax.jit(lambda s, b, f=f: net(s, b, f)).lower(state, batch), state, batch)
        for f in (pair, jax.checkpoint(pair))
    )
    assert again.model_flops > 1.2 * plain.model_flops
    assert again.temporary_bytes < 0.9 * plain.temporary_bytes


@pytest.mark.parametrize("stacked", [False, True])
def test_traffic_of_a_loop_moves_each_slice_once(stacked):
    def total(stack):
        def add(so_far, x):
            return so_far + jnp.sin(x), jnp.cos(x) if stacked else None

        return jax.lax.scan(add, stack[0], stack)

    rounds, size = 50, 4 * 4096
    stack = jax.ShapeDtypeStruct((rounds, 4096), jnp.float32)
    moved = plan(jax.jit(total).lower(stack), State((), (), ()), stack).traffic_bytes
    # A round reads a slice and the sum, and writes the sum. To write a slice too, the slice is read
    # once more by the operation that writes it, into memory that was filled with zeros before.
    assert moved == pytest.approx((6 if stacked else 3) * rounds * size, rel=0.1)


def test_traffic_without_loops_is_the_compilers():
    def function(x, w):
        return jax.nn.softmax(jnp.tanh(x @ w) @ w.T, axis=-1)

    shape = jax.ShapeDtypeStruct((256, 256), jnp.float32)
    compiled = jax.jit(function).lower(shape, shape).compile()
    program = parse(compiled.as_text())
    executed = program.executions(lambda one: 0.0)
    moved = sum(program.traffic(one.instruction) for one in executed if not one.fused)
    assert moved == pytest.approx(compiled.cost_analysis()["bytes accessed"], rel=0.05)


BY_HAND = Plan(
    devices=8,
    axes=(("data", 8), ("model", 1)),
    parameter_bytes=10,
    optimizer_bytes=20,
    other_bytes=4,
    batch_bytes=6,
    temporary_bytes=60,
    peak_bytes=100,
    flops=1000.0,
    model_flops=800.0,
    traffic_bytes=300.0,
    least_traffic_bytes=200.0,
    collectives=(),
    known=True,
    platform="cpu",
)


def test_the_roofline_by_hand():
    times = expect(BY_HAND, Chip(flops=100.0, memory=100.0, bandwidth=10.0, link=1.0))
    assert (times.compute, times.memory, times.communication) == (10, 30, 0)
    assert (times.slow, times.fast) == (30, 20)
    assert times.efficiency == pytest.approx(800 / (100 * 30))
    assert times.best_efficiency == pytest.approx(0.4)
    assert times.fits
    assert not expect(BY_HAND, Chip(100.0, 99.0, 10.0, 1.0)).fits


def test_communication_is_added_or_hidden(replicated):
    busy = Chip(flops=1e9, memory=1e9, bandwidth=1e12, link=1e6)
    times = expect(replicated, busy)
    assert times.communication == replicated.sent_bytes / 1e6
    assert times.slow == times.compute + times.communication
    assert times.fast == max(times.compute, times.communication)


def test_the_table_says_what_matters(replicated):
    text = render(replicated, CHIPS["tpu-v5e"])
    assert "4 devices (data=2, model=2)" in text
    assert "all-reduce  data" in text and "fits into 16 GB" in text
    assert "27.6 kB" in text.split("optimizer's state")[0].split("parameters")[1]
    assert "CPU" in text and max(map(len, text.splitlines())) <= 100
    assert "FLOPs             1 k" in render(BY_HAND)
    assert "DOES NOT FIT" in render(replicated, Chip(1.0, 1.0, 1.0, 1.0))


def test_chips_from_flags():
    figures = "flops=197e12,memory=16e9,bandwidth=819e9,link=200e9"
    assert parse_chip(figures) == parse_chip("tpu-v5e") == Chip(197e12, 16e9, 819e9, 200e9)
    assert parse_chip("h100,link=50e9") == CHIPS["h100"]._replace(link=50e9)


def test_chips_by_the_kind_that_jax_tells():
    assert chip_of("TPU v5 lite") == CHIPS["tpu-v5e"] and chip_of("NVIDIA H200") == CHIPS["h200"]
    assert chip_of("cpu") is chip_of("NVIDIA H100 PCIe") is None


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("tpu-v9", "give a name"),
        ("", "give a name"),
        ("flops=1e12,memory=16e9,bandwidth=1e9", "lacks link"),
        ("tpu-v5e,speed=3", "give a name"),
        ("tpu-v5e,link=1,link=2", "give a name"),
        ("tpu-v5e,link=fast", "link 'fast' is not a positive number"),
        ("tpu-v5e,link=0", "link '0' is not a positive number"),
        ("tpu-v5e,link=-3", "link '-3' is not a positive number"),
        ("tpu-v5e,link=nan", "link 'nan' is not a positive number"),
    ],
)
def test_bad_chips(text, complaint):
    with pytest.raises(InputError, match=complaint):
        parse_chip(text)


CODE = """
import test_plan, jax
from jax.sharding import AxisType, PartitionSpec as P
from dlcore.plan.step import plan
mesh = jax.make_mesh((64, 8), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
state, batch = test_plan.arguments(mesh, P(None, None, "model"))
costs = plan(test_plan.lowered(state, batch), state, batch, mesh=mesh)
print(costs.devices, costs.parameter_bytes, costs.batch_bytes, {a for _, a in costs.collectives})
"""


@pytest.mark.slow
def test_512_virtual_devices():
    environment = os.environ | {
        "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=512",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(pathlib.Path(__file__).parent)]),
    }
    command = [sys.executable, "-c", CODE]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    devices, parameters, rows, _ = run.stdout.split(maxsplit=3)
    assert int(devices) == 512
    assert int(parameters) == 4 * LAYERS * WIDTH * WIDTH // 8
    assert int(rows) == 4 * WIDTH
    assert "('data',)" in run.stdout
