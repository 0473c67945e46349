"""Where each leaf of a state lies on the devices, as a table."""

import itertools
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from jax.sharding import NamedSharding

from dlcore.paths import leaves_by_path


class Placed(NamedTuple):
    """A leaf, or several that differ only in the numbers in their paths.

    Attributes:
        path: with "*" in the place of each number in which they differ.
        leaves: how many they are.
        shape: of one, on all devices together.
        dtype: its type.
        place: as a sharding rule gives it, an axis of the mesh or "-" per dimension; "whole" where
            each device holds all of it.
        bytes: what the fullest device holds of all of them.
    """

    path: str
    leaves: int
    shape: tuple[int, ...]
    dtype: str
    place: str
    bytes: int


def placement(tree: Any) -> list[Placed]:
    """The places of the leaves of a tree of arrays or ShapeDtypeStructs with shardings, in order.

    Leaves that differ only in the numbers in their paths, as those of equal layers do, are one
    entry.
    """
    groups: dict[tuple[Any, ...], list[str]] = {}
    sizes: dict[tuple[Any, ...], int] = {}
    for path, leaf in leaves_by_path(tree).items():
        kind = leaf.shape, str(leaf.dtype), _place(leaf)
        key = re.sub(r"\d+", "*", path), *kind
        groups.setdefault(key, []).append(path)
        sizes[key] = sizes.get(key, 0) + leaf_bytes(leaf)
    return [
        Placed(_common(paths), len(paths), shape, dtype, place, sizes[key, shape, dtype, place])
        for (key, shape, dtype, place), paths in groups.items()
    ]


def leaf_bytes(leaf: Any) -> int:
    """The bytes that the fullest device holds of an array or ShapeDtypeStruct."""
    sharding = getattr(leaf, "sharding", None)
    shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
    return math.prod(shape) * leaf.dtype.itemsize


def _place(leaf: Any) -> str:
    sharding = getattr(leaf, "sharding", None)
    spec = sharding.spec if isinstance(sharding, NamedSharding) else ()
    axes = ["+".join([one] if isinstance(one, str) else one or "-") for one in spec]
    return ",".join(axes) if set(axes) - {"-"} else "whole"


def _common(paths: list[str]) -> str:
    """The paths as one, with "*" for the numbers in which they differ."""
    parts: Iterator[tuple[str, ...]] = zip(
        *(re.split(r"(\d+)", path) for path in paths), strict=True
    )
    return "".join(part[0] if len(set(part)) == 1 else "*" for part in parts)


def render_placement(tree: Any) -> str:
    """The table of `placement`, and the sum."""
    rows = [("path", "", "shape", "type", "place", "bytes per device")]
    found = placement(tree)
    for one in found:
        times = f"x {one.leaves}" if one.leaves > 1 else ""
        shape = " x ".join(map(str, one.shape)) or "()"
        rows.append((one.path, times, shape, one.dtype, one.place, f"{one.bytes:,}"))
    rows.append(("sum", "", "", "", "", f"{sum(one.bytes for one in found):,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(itertools.chain(cells[:-1], [row[-1].rjust(widths[-1])])))
    return "\n".join(lines)
