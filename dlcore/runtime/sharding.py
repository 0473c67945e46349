"""Places the leaves of a training state on a mesh: by rules on their paths, and fully sharded.

A mesh has three axes. The examples of a batch are spread over "data" and "fsdp". The state is also
cut over "fsdp": each device holds a part, and gathers the whole when it computes. Arrays that rules
cut over "model" stay cut: each device computes with its part (tensor parallel).
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dlcore import paths
from dlcore.errors import InputError, choose

DATA, FSDP, MODEL = AXES = ("data", "fsdp", "model")
ROWS = PartitionSpec((DATA, FSDP))  # of a batch: its examples
Rules = paths.Rules[PartitionSpec]
Specs = Any  # a tree of PartitionSpec of the structure of the state

# Leaves smaller than this many elements are not worth a collective.
FSDP_MINIMUM = 1024


def make_mesh(axes: str, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh that a string such as "data=4" or "data=2,fsdp=2,model=2" describes.

    Args:
        axes: comma-separated NAME=SIZE, with names among "data", "fsdp" and "model"; an axis that
            is not named has the size 1.
        devices: the devices, by default all of JAX's.

    Raises:
        InputError: when the string is not of that form or the sizes do not use every device.
    """
    devices = jax.devices() if devices is None else devices
    given = mesh_sizes(axes)
    sizes = tuple(given.get(name, 1) for name in AXES)
    if math.prod(sizes) != len(devices):
        raise InputError(
            f"mesh {axes!r} needs {math.prod(sizes)} devices, but there are {len(devices)} "
            f"{devices[0].platform} devices; give sizes whose product is {len(devices)}"
        )
    # Auto axes: under JAX's default, Explicit, Flax's layers fail.
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def mesh_sizes(axes: str) -> dict[str, int]:
    """Returns the sizes of the axes that a string such as "data=2,fsdp=2" names.

    Raises:
        InputError: when the string is not of that form, or names an unknown axis or an axis twice.
    """
    if not re.fullmatch(r"\w+=[1-9]\d*(,\w+=[1-9]\d*)*", axes):
        raise InputError(f"mesh {axes!r} is not of the form data=4 or data=2,fsdp=2,model=2")
    pairs = [axis.split("=") for axis in axes.split(",")]
    for name, _ in pairs:
        if name not in AXES:
            raise choose("axis of a mesh", name, AXES)
    given = {name: int(size) for name, size in pairs}
    if len(given) < len(pairs):
        raise InputError(f"mesh {axes!r} names an axis twice; give the size of each once")
    return given


def place(shapes: Any, mesh: Mesh, rules: Rules) -> Specs:
    """Returns the placement of each leaf, by the first rule that fits and cut over "fsdp".

    A rule must match the leaf's path. The paths of an optimizer's moments contain those of their
    parameters, so one rule places both. A rule fits when the leaf has its number of dimensions and
    the axes divide them. The axis "fsdp" cuts the largest dimension that it divides and no rule has
    cut; leaves of fewer than `FSDP_MINIMUM` elements stay whole.

    Args:
        shapes: a tree of arrays or `jax.ShapeDtypeStruct`.
        mesh: a mesh of `make_mesh`.
        rules: pairs (regular expression, axes of the dimensions).
    """
    size = mesh.shape[FSDP]

    def of(key_path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
        path = paths.path_of(key_path)
        found = (spec for pattern, spec in rules if re.search(pattern, path))
        spec = next((spec for spec in found if not misfit(leaf, spec, mesh)), PartitionSpec())
        axes = [*spec, *[None] * (leaf.ndim - len(spec))]
        free = [d for d, axis in enumerate(axes) if axis is None and leaf.shape[d] % size == 0]
        if size == 1 or leaf.size < FSDP_MINIMUM or not free:
            return spec
        axes[max(free, key=lambda d: leaf.shape[d])] = FSDP
        return PartitionSpec(*axes)

    return jax.tree_util.tree_map_with_path(of, shapes)


def computed(shapes: Any, mesh: Mesh, rules: Rules) -> Specs:
    """Returns the placement along "model" in which each leaf takes part in computations.

    It is the placement in which the leaf is stored, except where a rule matches but does not fit
    and a later one does: then the leaf is stored by the later rule, but computations use the first
    one, with uneven parts, which the compiler pads.

    Args:
        shapes: a tree of arrays or `jax.ShapeDtypeStruct`.
        mesh: a mesh of `make_mesh`.
        rules: pairs (regular expression, axes of the dimensions).
    """

    def of(key_path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
        path = paths.path_of(key_path)
        found = [spec for pattern, spec in rules if re.search(pattern, path)]
        spec = found[0] if any(not misfit(leaf, spec, mesh) for spec in found) else PartitionSpec()
        return along(MODEL, spec)

    return jax.tree_util.tree_map_with_path(of, shapes)


def along(axis: str, spec: PartitionSpec) -> PartitionSpec:
    """Returns the part of a placement that lies along one axis of the mesh."""
    names = [name if name == axis else None for name in spec]
    while names and names[-1] is None:  # JAX does not take P(None) for P()
        names.pop()
    return PartitionSpec(*names)


def misfit(leaf: Any, spec: PartitionSpec, mesh: Mesh) -> str | None:
    """Returns why a leaf cannot be placed in this way on the mesh, or None if it can."""
    if leaf.ndim < len(spec):
        return f"the rule names {len(spec)} dimensions; give at most {leaf.ndim}"
    for size, axis in zip(leaf.shape, spec, strict=False):
        if axis is not None and size % mesh.shape[axis]:
            return (
                f"{size} is not divisible by the {mesh.shape[axis]} devices of axis {axis!r}; "
                "change the rule or the mesh"
            )
    return None


def check_rules(shapes: Any, mesh: Mesh, rules: Rules) -> None:
    """Raises InputError when a rule matches no path, or does not fit a leaf that it matches."""
    specs = paths.match(shapes, rules, PartitionSpec())

    def check(key_path: tuple[Any, ...], leaf: Any, spec: PartitionSpec) -> None:
        wrong = misfit(leaf, spec, mesh)
        if wrong:
            raise InputError(f"{paths.path_of(key_path)} has the shape {leaf.shape}: {wrong}")

    jax.tree_util.tree_map_with_path(check, shapes, specs)


def named(mesh: Mesh, specs: Specs) -> Any:
    """Returns the tree of `NamedSharding` on `mesh` for a tree of PartitionSpec."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def parse_rule(text: str) -> tuple[str, PartitionSpec]:
    """Returns a sharding rule from a flag: "REGEX:AXES", AXES one per dimension, "-" for not cut.

    >>> pattern, spec = parse_rule("dense_0/kernel:-,model")
    >>> pattern, tuple(spec)
    ('dense_0/kernel', (None, 'model'))

    Raises:
        InputError: when the text is not of that form, or names an axis that no mesh has.
    """
    pattern, colon, axes = text.rpartition(":")
    if not colon or not pattern or not axes:
        raise InputError(f"sharding rule {text!r} is not of the form REGEX:-,model")
    for axis in axes.split(","):
        if axis not in ("-", *AXES):
            raise choose("axis of a sharding rule", axis, ("-", *AXES))
    return pattern, PartitionSpec(*[None if axis == "-" else axis for axis in axes.split(",")])


def rows_of_process(mesh: Mesh) -> tuple[int, int]:
    """Returns which part of each batch this process feeds, and the number of parts.

    Processes that share the examples, because "model" spans them, feed the same part.

    Raises:
        InputError: when the devices of a process do not hold an even, contiguous part of the rows.
    """
    shards = mesh.shape[DATA] * mesh.shape[FSDP]
    parts: dict[int, set[int]] = {}
    for shard, devices in enumerate(mesh.devices.reshape(shards, -1)):
        for device in devices:
            parts.setdefault(device.process_index, set()).add(shard)
    ordered = sorted({tuple(sorted(part)) for part in parts.values()})
    size = len(ordered[0])
    if ordered != [tuple(range(start, start + size)) for start in range(0, shards, size)]:
        raise InputError(
            f"mesh {dict(mesh.shape)} gives the processes uneven parts of a batch; make data * "
            "fsdp a multiple of the processes, or model a multiple of the devices of a process"
        )
    return ordered.index(tuple(sorted(parts[jax.process_index()]))), len(ordered)
