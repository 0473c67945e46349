"""The table of where leaves lie, against places set by hand."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dlcore.plan.placement import Placed, leaf_bytes, placement, render_placement

P = PartitionSpec


def tree():
    mesh = jax.make_mesh((2, 2), ("fsdp", "model"), axis_types=(AxisType.Auto,) * 2)

    def at(shape, *spec, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P(*spec)))

    return {
        "layer_0": {"kernel": at((8, 6), None, "model"), "bias": at((6,))},
        "layer_1": {"kernel": at((8, 6), None, "model"), "bias": at((6,), None)},
        "layer_2": {"kernel": at((8, 6), "fsdp"), "bias": at((4,))},
        "table": at((8, 3), ("fsdp", "model"), dtype=jnp.bfloat16),
        "step": jax.ShapeDtypeStruct((), jnp.int32),
    }


def test_equal_leaves_of_numbered_layers_are_one_row():
    assert placement(tree()) == [
        Placed("layer_*/bias", 2, (6,), "float32", "whole", 2 * 4 * 6),
        Placed("layer_*/kernel", 2, (8, 6), "float32", "-,model", 2 * 4 * 8 * 3),
        Placed("layer_2/bias", 1, (4,), "float32", "whole", 4 * 4),
        Placed("layer_2/kernel", 1, (8, 6), "float32", "fsdp", 4 * 4 * 6),
        Placed("step", 1, (), "int32", "whole", 4),
        Placed("table", 1, (8, 3), "bfloat16", "fsdp+model", 2 * 2 * 3),
    ]


def test_only_the_numbers_that_differ_are_left_out():
    leaf = jnp.zeros(2)
    entries = placement({"a_1": {"b_0": leaf, "b_10": leaf}})
    assert [(entry.path, entry.leaves, entry.bytes) for entry in entries] == [("a_1/b_*", 2, 16)]


def test_bytes_are_those_of_the_fullest_device():
    assert leaf_bytes(jnp.zeros((3, 5), jnp.int8)) == 15


def test_the_table_has_the_sum():
    lines = render_placement(tree()).splitlines()
    assert lines[1].split() == ["layer_*/bias", "x", "2", "6", "float32", "whole", "48"]
    assert lines[2].split()[-2:] == ["-,model", "192"]
    assert lines[-1].split() == ["sum", "368"]
