"""Compares the copies of arrays that should be equal on all devices."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from dlcore import paths
from dlcore.types import at_least_float32

# Of the largest number of a leaf: devices may round differently, since each may choose the order
# of its own sums.
_ROUNDING = 1e-5


def differing(tree: Any, mesh: Mesh) -> str | None:
    """Returns the path of the first leaf whose copies differ between devices, or None.

    Args:
        tree: arrays that are replicated over the mesh.
        mesh: a mesh with one axis.
    """
    (axis,) = mesh.axis_names

    def compare(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: _differs(leaf, axis), tree)

    everywhere = PartitionSpec()
    found = jax.jit(
        jax.shard_map(
            compare, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False
        )
    )(tree)
    by_path = paths.leaves_by_path(found)
    return next((path for path, differs in by_path.items() if differs), None)


def _differs(leaf: jax.Array, axis: str) -> jax.Array:
    """Returns whether the copies of a leaf differ by more than rounding, a bool."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        leaf = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf
        return jnp.any(jax.lax.pmin(leaf, axis) != jax.lax.pmax(leaf, axis))
    # Sums and maxima of numbers that are not finite are not the same on all kinds of devices.
    kinds = [jnp.isfinite(leaf), jnp.isposinf(leaf), jnp.isneginf(leaf)]
    kind = jnp.argmax(jnp.stack([*kinds, jnp.ones(leaf.shape, bool)]), axis=0)
    leaf = jnp.where(kind == 0, leaf, 0).astype(at_least_float32(leaf.dtype))
    low, high = jax.lax.pmin(leaf, axis), jax.lax.pmax(leaf, axis)
    largest = jnp.max(jnp.maximum(high, -low), initial=0)
    return jnp.any(high - low > _ROUNDING * largest) | jnp.any(
        jax.lax.pmin(kind, axis) != jax.lax.pmax(kind, axis)
    )
