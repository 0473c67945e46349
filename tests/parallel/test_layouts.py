"""The same step under every layout, on four virtual devices."""

import functools

import jax
import networks
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from dlcore import runtime
from dlcore.errors import InputError
from dlcore.runtime import sharding
from dlcore.train import gradient_step
from dlcore.types import Rows

LAYOUTS = {
    "pmap": lambda: runtime.layout("pmap"),
    "mesh": lambda: runtime.layout("mesh"),
    "fsdp": lambda: runtime.layout("mesh", mesh="fsdp=4"),
    "data and fsdp": lambda: runtime.layout("mesh", mesh="data=2,fsdp=2"),
    "model axis": lambda: runtime.layout(
        "mesh", mesh="data=2,model=2", rules=[runtime.parse_rule("Dense_0/kernel:-,model")]
    ),
    "fsdp and model": lambda: runtime.layout(
        "mesh", mesh="fsdp=2,model=2", rules=[runtime.parse_rule("Dense_0/kernel:-,model")]
    ),
}


def marked(names, quick):
    """The names, those not among `quick` marked as slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name not in quick)) for name in names]


def three_steps(layout, accumulate=1, norm=True):
    model, tx = networks.Network(norm=norm), optax.adamw(1e-2)
    step = runtime.compile_step(
        gradient_step(networks.make_loss(model), tx, accumulate=accumulate), layout
    )
    state = layout.initialise(lambda: networks.make_state(model, tx))
    places = jax.tree.map(lambda leaf: leaf.sharding, state)
    losses = []
    for number in range(3):
        state, metrics = step(state, networks.batch(number))
        losses.append(float(metrics["loss"].compute()))
    assert step.traces == 1
    return state, losses, places


@functools.cache
def steps_of_one_device(norm=True):
    """The state and the losses that every layout must reach."""
    state, losses, _ = three_steps(runtime.layout("jit"), norm=norm)
    return networks.arrays(state), losses


@pytest.mark.parametrize("name", marked(LAYOUTS, {"fsdp and model"}))
def test_three_steps_equal_those_of_one_device(name):
    reference, reference_losses = steps_of_one_device()
    state, losses, places = three_steps(LAYOUTS[name]())
    np.testing.assert_allclose(losses, reference_losses, rtol=0, atol=1e-6)
    networks.assert_close(state, reference)
    jax.tree.map(
        lambda leaf, place: leaf.sharding.is_equivalent_to(place, leaf.ndim), state, places
    )


@pytest.mark.parametrize("name", marked(LAYOUTS, {"fsdp and model"}))
def test_accumulation_equals_the_whole_batch_in_every_layout(name):
    reference, reference_losses = steps_of_one_device(norm=False)
    state, losses, _ = three_steps(LAYOUTS[name](), accumulate=4, norm=False)
    np.testing.assert_allclose(losses, reference_losses, rtol=0, atol=1e-6)
    networks.assert_close(state, reference)


def test_fsdp_cuts_every_large_leaf_and_the_optimizer_state_with_it():
    layout = runtime.layout("mesh", mesh="fsdp=4")
    state = layout.initialise(
        lambda: {
            "w": jax.numpy.zeros((48, 64)),
            "odd": jax.numpy.zeros((37, 41)),
            "b": jax.numpy.zeros(8),
        }
    )
    assert state["w"].sharding.spec == PartitionSpec(None, "fsdp")
    assert state["w"].addressable_shards[0].data.shape == (48, 16)
    assert state["odd"].sharding.spec == PartitionSpec() == state["b"].sharding.spec


def test_rules_place_the_parameter_and_its_moments():
    model, tx = networks.Network(), optax.adam(1e-2)
    state = LAYOUTS["model axis"]().initialise(lambda: networks.make_state(model, tx))
    spec = PartitionSpec(None, "model")
    assert state.params["Dense_0"]["kernel"].sharding.spec == spec
    assert state.opt_state[0].mu["Dense_0"]["kernel"].sharding.spec == spec
    assert state.params["Dense_1"]["kernel"].sharding.spec == PartitionSpec()


@pytest.mark.parametrize("name", ["jit", "pmap", "mesh", "fsdp"])
def test_evaluation_sums_over_all_devices(name):
    layout = {**LAYOUTS, "jit": lambda: runtime.layout("jit")}[name]()
    count = runtime.compile_evaluation(
        lambda state, batch: ((batch["weight"] * state).sum(), None), layout
    )
    state = layout.initialise(lambda: jax.numpy.full((), 2.0))
    total, _ = count(state, {"weight": np.arange(8, dtype=np.float32)})
    assert float(total) == 56


@pytest.mark.parametrize("name", ["jit", "pmap", "mesh", "fsdp"])
def test_evaluation_keeps_the_rows_of_all_devices_in_order(name):
    layout = {**LAYOUTS, "jit": lambda: runtime.layout("jit")}[name]()

    def function(state, batch):
        kept = {"number": batch["number"], "real": batch["real"]}
        return {"rows": Rows(kept, batch["weight"] * state)}, None

    state = layout.initialise(lambda: jax.numpy.full((), 2.0))
    batch = {
        "number": np.arange(16, dtype=np.int32).reshape(8, 2),
        "real": np.arange(8) % 3 == 0,
        "weight": np.arange(8, dtype=np.float32),
    }
    found, _ = runtime.compile_evaluation(function, layout)(state, batch)
    np.testing.assert_array_equal(found["rows"].values["number"], batch["number"])
    np.testing.assert_array_equal(found["rows"].values["real"], batch["real"])
    np.testing.assert_array_equal(found["rows"].weight, 2 * batch["weight"])


def test_a_new_shape_counts_as_a_recompilation():
    step = runtime.compile_step(lambda state, batch: (state, {}), runtime.layout("jit"))
    for size in (4, 4, 8, 4):
        step(jax.numpy.zeros(2), {"x": np.zeros(size)})
    assert step.traces == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "tpu"}, "unknown layout 'tpu'; choose one of: jit, mesh, pmap"),
        ({"kind": "mesh", "mesh": "data=3"}, "needs 3 devices, but there are 4 cpu devices"),
        ({"kind": "mesh", "mesh": "data:4"}, "not of the form data=4"),
        ({"kind": "mesh", "mesh": "tensor=4"}, "unknown axis of a mesh 'tensor'; choose one of"),
        ({"kind": "mesh", "mesh": "data=2,data=2"}, "names an axis twice"),
        ({"kind": "jit", "mesh": "data=4"}, "layout 'jit' has no mesh"),
    ],
)
def test_layouts_that_cannot_be(arguments, message):
    with pytest.raises(InputError, match=message):
        runtime.layout(**arguments)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("w$:-,tensor", "unknown axis of a sharding rule 'tensor'; choose one of"),
        ("w$:-,-,data", r"w has the shape \(6, 8\): the rule names 3 dimensions; give at most 2"),
        ("w$:data,-", "6 is not divisible by the 4 devices of axis 'data'"),
        ("v$:data", "'v\\$' matches none"),
        ("w$", "not of the form REGEX:-,model"),
    ],
)
def test_sharding_rules_that_cannot_be(rule, message):
    with pytest.raises(InputError, match=message):
        shapes = {"w": jax.ShapeDtypeStruct((6, 8), "float32")}
        sharding.check_rules(shapes, sharding.make_mesh("data=4"), [runtime.parse_rule(rule)])


@pytest.mark.parametrize(
    ("size", "accumulate", "message"),
    [
        (30, 1, "30 is not divisible by 4 = 4 devices x 1 .* nearest that is: 28 or 32"),
        (32, 3, "nearest that is: 24 or 36"),
        (0, 1, "nearest that is: 4"),
    ],
)
def test_batch_sizes_that_do_not_divide(size, accumulate, message):
    with pytest.raises(InputError, match=message):
        runtime.layout("mesh").check_batch_size(size, accumulate)


PADDED = {"jit": lambda: runtime.layout("jit"), **LAYOUTS}


@pytest.fixture(scope="module")
def step_without_padding():
    """The network, its optimizer, eight rows, and what a step on these gives."""
    model, tx = networks.Network(rate=0.0), optax.sgd(0.1)
    rows = networks.batch(0, 8)
    step = jax.jit(gradient_step(networks.make_loss(model), tx))
    return model, tx, rows, networks.arrays(step(networks.make_state(model, tx), rows))


@pytest.mark.parametrize("name", marked(PADDED, {"jit", "pmap"}))
def test_padded_rows_count_nothing_in_batch_normalisation(name, step_without_padding):
    """Neither their number on a device nor that they are not finite changes anything."""
    model, tx, rows, (reference, expected) = step_without_padding
    places = np.array([0, 1, 2, 3, 5, 8, 9, 12])  # 4, 1, 2 and 1 of the rows of four devices
    padded = {name: np.zeros((16, *leaf.shape[1:]), leaf.dtype) for name, leaf in rows.items()}
    padded["x"][:] = np.nan
    for key, leaf in rows.items():
        padded[key][places] = leaf
    layout = PADDED[name]()
    step = runtime.compile_step(gradient_step(networks.make_loss(model), tx), layout)
    state, metrics = step(layout.initialise(lambda: networks.make_state(model, tx)), padded)
    networks.assert_close(state, reference)
    networks.assert_close(metrics, expected)
