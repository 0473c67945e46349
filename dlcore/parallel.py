"""The part of the global batch that the code being traced sees, and sums over all parts.

Under jit a model sees the whole batch. On several devices it sees one device's part, and under
gradient accumulation one micro-batch. Layers that look across examples (batch normalisation) or
draw noise per example (dropout) must know which part this is, or their results would change with
the layout. The training step records the part here while it traces the model, much like a named
axis; models need no code for it.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TypeVar

import jax
import jax.numpy as jnp

from dlcore.types import Rows

# The name of an axis of devices, or of several.
AxisName = str | tuple[str, ...]
Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the global batch.

    Attributes:
        offset: the position of the part's first example in the global batch, an int32 scalar.
        stride: the distance in the global batch between two neighbours of the part.
        axis_name: the named axes over which the devices hold the other parts, or None.
        weight: (B,), the weights of the part's examples, 0 for padding; None where all count.
    """

    offset: jax.Array | int = 0
    stride: int = 1
    axis_name: AxisName | None = None
    weight: jax.Array | None = None


def on_one_cpu(*arrays: jax.Array) -> bool:
    """Returns whether arrays that are being traced lie on one CPU, not on a mesh of devices.

    The type of an array names the mesh that it lies on.
    """
    return jax.default_backend() == "cpu" and all(
        jax.typeof(array).sharding.mesh.size < 2 for array in arrays
    )


@dataclasses.dataclass
class Sums:
    """A count of the sums over devices that traced code asked for.

    Attributes:
        count: the number of sums.
    """

    count: int = 0


# The whole batch, which is what code sees that nobody told otherwise.
WHOLE = Part()
_current: ContextVar[Part] = ContextVar("part of the batch", default=WHOLE)
_sums: ContextVar[Sums | None] = ContextVar("sums over devices", default=None)


@contextlib.contextmanager
def part_of_batch(part: Part) -> Iterator[None]:
    """Makes models traced while open see this part of the global batch."""
    token = _current.set(part)
    try:
        yield
    finally:
        _current.reset(token)


def current_part() -> Part:
    """Returns the part of the global batch that is being traced."""
    return _current.get()


def axis_name() -> AxisName | None:
    """Returns the named axes over which the rest of the batch lies, or None."""
    return _current.get().axis_name


def positions(count: int) -> jax.Array:
    """Returns the positions in the global batch of the part's `count` examples, int32 (count,)."""
    part = _current.get()
    return part.offset + part.stride * jnp.arange(count, dtype=jnp.int32)


def row_keys(key: jax.Array, count: int) -> jax.Array:
    """Returns a key for each of the part's `count` examples, the same in every layout."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, positions(count))


def row_weights(count: int) -> jax.Array | None:
    """Returns the weights of the part's `count` examples, (count,).

    None means that all examples count. This is so when no step is being traced, when its batch has
    no weights, and when `count` is not the number of its rows.
    """
    weight = _current.get().weight
    return weight if weight is not None and weight.shape == (count,) else None


def sum_over_devices(tree: Tree) -> Tree:
    """Returns the sum of each leaf over the devices that hold the parts of the batch.

    `Rows` are not summed but concatenated over the devices, in the order of the batch.

    Where one device sees the whole batch, or the traced code sees the batch of all devices at once
    (on a mesh, outside of `runtime.map_rows`), the result is the tree itself.

    >>> sum_over_devices({"examples": 8})
    {'examples': 8}
    """
    if (sums := _sums.get()) is not None:
        sums.count += 1
    axis = _current.get().axis_name
    if axis is None:
        return tree
    return jax.tree.map(
        lambda part: gather_over_devices(part) if isinstance(part, Rows) else _summed(part, axis),
        tree,
        is_leaf=lambda part: isinstance(part, Rows),
    )


def gather_over_devices(tree: Tree) -> Tree:
    """Returns the rows of each leaf on all devices, one after another, in the order of the batch.

    Where `sum_over_devices` sums nothing, it returns the tree itself.

    >>> gather_over_devices([1, 2])
    [1, 2]
    """
    axis = _current.get().axis_name
    if axis is None:
        return tree
    return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, axis, tiled=True), tree)


def device_share() -> tuple[jax.Array | int, int]:
    """Returns the index of the traced device among those with parts of the batch, and their number.

    It returns (0, 1) where `sum_over_devices` sums nothing.

    >>> device_share()
    (0, 1)
    """
    axis = _current.get().axis_name
    if axis is None or (count := int(jax.lax.axis_size(axis))) == 1:
        return 0, 1
    return jax.lax.axis_index(axis), count


def _summed(leaf: jax.Array | float, axis: AxisName) -> jax.Array:
    # XLA's CPU backend aborts on sums of bfloat16 between devices (jaxlib 0.10).
    return jax.lax.psum(_widened(leaf), axis).astype(jnp.result_type(leaf))


def _widened(leaf: jax.Array | float) -> jax.Array:
    leaf = jnp.asarray(leaf)
    half = jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize < 4
    return leaf.astype(jnp.float32) if half else leaf


@contextlib.contextmanager
def counted_sums() -> Iterator[Sums]:
    """Counts the calls of `sum_over_devices` while open."""
    sums = Sums()
    token = _sums.set(sums)
    try:
        yield sums
    finally:
        _sums.reset(token)
