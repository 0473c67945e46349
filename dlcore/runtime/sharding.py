"""Where each leaf of a training state lies on a mesh: by rules on its path, or fully sharded."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dlcore import paths
from dlcore.errors import InputError

DATA = "data"
Specs = Any  # a tree of PartitionSpec of the structure of the state

# Leaves smaller than this many elements are not worth a collective.
FSDP_MINIMUM = 1024


def make_mesh(axes: str, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh that a string such as "data=4" or "data=2,model=2" describes.

    Args:
        axes: comma-separated NAME=SIZE; an axis named "data" must be among them.
        devices: all of JAX's devices by default.

    Raises:
        InputError: when the string is not of that form or the sizes do not use every device.
    """
    devices = jax.devices() if devices is None else devices
    if not re.fullmatch(r"\w+=[1-9]\d*(,\w+=[1-9]\d*)*", axes):
        raise InputError(f"mesh {axes!r} is not of the form data=4 or data=2,model=2")
    pairs = [axis.split("=") for axis in axes.split(",")]
    names = tuple(name for name, _ in pairs)
    sizes = tuple(int(size) for _, size in pairs)
    if DATA not in names or len(set(names)) < len(names):
        raise InputError(f"mesh {axes!r} must name each axis once, the axis 'data' among them")
    if np.prod(sizes) != len(devices):
        raise InputError(
            f"mesh {axes!r} wants {np.prod(sizes)} devices, but there are {len(devices)} "
            f"{devices[0].platform} devices; give sizes whose product is {len(devices)}"
        )
    # Auto axes: under JAX's default, Explicit, Flax's layers fail.
    return jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * len(names), devices=devices)


def fsdp(shapes: Any, mesh: Mesh, *, axis: str = DATA, minimum: int = FSDP_MINIMUM) -> Specs:
    """Fully sharded: each large leaf is cut along its largest dimension that the axis divides.

    Args:
        shapes: a tree of arrays or `jax.ShapeDtypeStruct`.
        mesh: the mesh that holds `axis`.
        axis: the mesh axis to cut along.
        minimum: leaves of fewer elements are replicated.
    """

    def spec(leaf: Any) -> PartitionSpec:
        fitting = [d for d, size in enumerate(leaf.shape) if size % mesh.shape[axis] == 0]
        if leaf.size < minimum or not fitting:
            return PartitionSpec()
        largest = max(fitting, key=lambda d: leaf.shape[d])
        return PartitionSpec(*[axis if d == largest else None for d in range(leaf.ndim)])

    return jax.tree.map(spec, shapes)


def shard_by_rules(shapes: Any, mesh: Mesh, rules: paths.Rules[PartitionSpec]) -> Specs:
    """Each leaf's place by the first rule found in its path; replicated where none is.

    An optimizer's moments carry the paths of their parameters, so one rule places both.

    Raises:
        InputError: when a rule matches nothing, has more dimensions than a leaf that it matches,
            names an axis that the mesh lacks, or cuts a dimension that the axis does not divide.
    """
    specs = paths.match(shapes, rules, PartitionSpec())

    def checked(key_path: tuple[Any, ...], leaf: Any, spec: PartitionSpec) -> PartitionSpec:
        if leaf.ndim < len(spec):
            raise InputError(
                f"sharding rule names {len(spec)} dimensions, but {paths.path_of(key_path)} has "
                f"the shape {leaf.shape}; give at most {leaf.ndim}"
            )
        for size, axis in zip(leaf.shape, spec, strict=False):
            if axis is not None and axis not in mesh.shape:
                raise InputError(
                    f"sharding rule names the axis {axis!r}; the mesh has {list(mesh.shape)}"
                )
            if axis is not None and size % mesh.shape[axis]:
                raise InputError(
                    f"{paths.path_of(key_path)} has shape {leaf.shape}, whose {size} is not "
                    f"divisible by the {mesh.shape[axis]} devices of axis {axis!r}; change the "
                    "rule or the mesh"
                )
        return spec

    return jax.tree_util.tree_map_with_path(checked, shapes, specs)


def named(mesh: Mesh, specs: Specs) -> Any:
    """The tree of `NamedSharding` on `mesh` that a tree of PartitionSpec means."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        specs,
        is_leaf=lambda leaf: isinstance(leaf, PartitionSpec),
    )


def parse_rule(text: str) -> tuple[str, PartitionSpec]:
    """A sharding rule from a flag: "REGEX:AXES", AXES one per dimension, "-" for not cut.

    >>> parse_rule("dense_0/kernel:-,model")
    ('dense_0/kernel', PartitionSpec(None, 'model'))
    """
    pattern, colon, axes = text.rpartition(":")
    if not colon or not pattern or not axes:
        raise InputError(f"sharding rule {text!r} is not of the form REGEX:-,model")
    return pattern, PartitionSpec(*[None if axis == "-" else axis for axis in axes.split(",")])
