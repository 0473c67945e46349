"""Makes a table of where each leaf of a state lies on the devices."""

import itertools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.sharding import NamedSharding

from dlcore.paths import leaves_by_path
from dlcore.types import PyTree

# Path with stars, shape, type and place.
_Kind = tuple[str, tuple[int, ...], str, str]


class Placed(NamedTuple):
    """A leaf, or several that differ only in the numbers in their paths.

    Attributes:
        path: their path, with "*" for each number in which they differ.
        leaves: the number of leaves.
        shape: the shape of one leaf, on all devices together.
        dtype: the type of one leaf.
        place: for each dimension the axis of the mesh that cuts it or "-", as in a sharding rule;
            "whole" where each device holds all of the leaf.
        bytes: the bytes of these leaves that the fullest device holds.
    """

    path: str
    leaves: int
    shape: tuple[int, ...]
    dtype: str
    place: str
    bytes: int


def placement(tree: PyTree) -> list[Placed]:
    """Lists where the leaves of a tree of arrays or ShapeDtypeStructs with shardings lie.

    Leaves that differ only in the numbers in their paths, such as those of equal layers, share one
    entry.
    """
    groups: dict[_Kind, list[str]] = {}
    sizes: dict[_Kind, int] = {}
    for path, leaf in leaves_by_path(tree).items():
        kind = leaf.shape, str(leaf.dtype), _place(leaf)
        key = re.sub(r"\d+", "*", path), *kind
        groups.setdefault(key, []).append(path)
        sizes[key] = sizes.get(key, 0) + leaf_bytes(leaf)
    return [
        Placed(_common(paths), len(paths), shape, dtype, place, sizes[key, shape, dtype, place])
        for (key, shape, dtype, place), paths in groups.items()
    ]


def leaf_bytes(leaf: jax.Array | jax.ShapeDtypeStruct) -> int:
    """Returns the bytes that the fullest device holds of an array or ShapeDtypeStruct."""
    sharding = getattr(leaf, "sharding", None)
    shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
    return math.prod(shape) * leaf.dtype.itemsize


def _place(leaf: jax.Array | jax.ShapeDtypeStruct) -> str:
    sharding = getattr(leaf, "sharding", None)
    spec = sharding.spec if isinstance(sharding, NamedSharding) else ()
    axes = ["+".join([entry] if isinstance(entry, str) else entry or "-") for entry in spec]
    return ",".join(axes) if set(axes) - {"-"} else "whole"


def _common(paths: list[str]) -> str:
    """Merges paths into one, with "*" for the numbers in which they differ."""
    columns: Iterator[tuple[str, ...]] = zip(
        *(re.split(r"(\d+)", path) for path in paths), strict=True
    )
    return "".join(column[0] if len(set(column)) == 1 else "*" for column in columns)


def render_placement(tree: PyTree) -> str:
    """Returns the table of `placement` as text, with the sum."""
    rows = [("path", "", "shape", "type", "place", "bytes per device")]
    entries = placement(tree)
    for entry in entries:
        times = f"x {entry.leaves}" if entry.leaves > 1 else ""
        shape = " x ".join(map(str, entry.shape)) or "()"
        rows.append((entry.path, times, shape, entry.dtype, entry.place, f"{entry.bytes:,}"))
    rows.append(("sum", "", "", "", "", f"{sum(entry.bytes for entry in entries):,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(itertools.chain(cells[:-1], [row[-1].rjust(widths[-1])])))
    return "\n".join(lines)
