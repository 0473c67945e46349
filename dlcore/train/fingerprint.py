"""Fingerprints, which find a flipped bit in a checkpoint, and descriptions of states.

Storage formats restore damaged data without a word. So a checkpoint holds a number for each leaf
and one for its JSON, and the restored data must have the same numbers.
"""

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.paths import leaves_by_path


def _fingerprint(leaf: jax.Array) -> jax.Array:
    """Returns the sum of the elements' bits, each times an odd number of its position, mod 2^32.

    An odd factor maps different patterns to different terms, so any single changed element shows.
    Positions are counted in the global array, and sums of integers do not depend on their order,
    so the number is the same for every sharding.
    """
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    width = leaf.dtype.itemsize
    bits = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * min(width, 4)}"))
    position = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        stride = math.prod(bits.shape[axis + 1 :]) % 2**32
        position += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * jnp.uint32(stride)
    return jnp.sum(bits.astype(jnp.uint32) * (2 * position + 1), dtype=jnp.uint32)


@jax.jit
def _stacked(leaves: list[jax.Array]) -> jax.Array:
    return jnp.stack([_fingerprint(leaf) for leaf in leaves])


def fingerprints(tree: Any) -> dict[str, int]:
    """Returns the fingerprint of each leaf by its path; waits until the leaves are computed."""
    by_path = leaves_by_path(tree)
    return dict(zip(by_path, np.asarray(_stacked(list(by_path.values()))).tolist(), strict=True))


def fingerprint_of_json(value: Any) -> int:
    """Returns the CRC-32 of a JSON value; writing and reading the value does not change it."""
    value = json.loads(json.dumps(value))  # makes lists of tuples, and names of numbers
    return zlib.crc32(json.dumps(value, sort_keys=True).encode("ascii"))


def describe(tree: Any) -> dict[str, str]:
    """Returns the type and shape of each leaf by its path, such as "float32[3,3,1,6]"."""
    return {
        path: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
        for path, leaf in leaves_by_path(tree).items()
    }


def difference(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Returns the first five differences of two configurations or descriptions, in words."""
    absent = object()
    names = sorted(name for name in {*was, *now} if was.get(name, absent) != now.get(name, absent))
    parts = [
        f"{name}: {was.get(name, 'absent')} then, {now.get(name, 'absent')} now" for name in names
    ]
    return "; ".join(parts[:5]) + (f"; and {len(parts) - 5} more" if len(parts) > 5 else "")
