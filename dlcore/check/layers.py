"""The table of a model's layers: shapes, parameters, multiply-adds, memory and receptive fields."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from itertools import groupby

import jax
import numpy as np

from dlcore.paths import leaves_by_path
from dlcore.plan.walk import ApplyFn, Operation, walk
from dlcore.types import Params, Variables

_NAMES = {
    "conv_general_dilated": "convolution",
    "dot_general": "matrix product",
    "gather": "lookup",
    "reduce_window_max": "max pool",
    "reduce_window_sum": "sum pool",
    "reduce_sum": "sum",
    "reduce_max": "maximum",
    "reshape": "flatten",
    "add": "join",
    "concatenate": "join",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        path: the module, as in the parameter tree; "" for the model itself.
        operation: its main operation, in a word or two.
        shape: the shape of the output.
        parameters: the count of numbers that the module itself owns, listed where it first runs.
        multiply_adds: the multiply-adds of products and convolutions, for the whole batch.
        bytes: the size of the output.
        receptive_field: pixels along each spatial axis of the input, padding included; clipped to
            the input where all outputs see the same. Empty if independent of the input.
        stride: pixels between the fields of neighbouring outputs; 0 where all see the same.
    """

    path: str
    operation: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    bytes: int
    receptive_field: tuple[int, ...]
    stride: tuple[int, ...]


def layer_table(
    apply_fn: ApplyFn, variables: Variables, inputs: jax.Array | jax.ShapeDtypeStruct
) -> list[Row]:
    """Lists the layers of a model in order of execution.

    A layer is a run of operations of one module that owns parameters, multiplies, or changes the
    receptive field. Element-wise operations belong to the layer before them. A product inside a
    loop over time has the shape of one step and the multiply-adds of all steps.

    Args:
        apply_fn: (variables, inputs) -> outputs, in evaluation mode; only traced.
        variables: {"params": ..., other collections}; arrays or ShapeDtypeStructs.
        inputs: array or ShapeDtypeStruct (B, spatial axes..., C), or tokens (B, T). Multiply-adds
            and bytes are for this batch: use B = 1 for those of one example.

    Returns:
        One row for each layer. Their parameters sum to the number of elements in
        `variables["params"]`; modules that no output needs come last, as "unused".
    """
    operations, _ = walk(apply_fn, variables, inputs)
    owned: dict[str, int] = {}
    for path, leaf in leaves_by_path(variables["params"]).items():
        owner = path.rpartition("/")[0]
        owned[owner] = owned.get(owner, 0) + math.prod(np.shape(leaf))
    # These modules own parameters and contain no module: operations in their scope belong to them.
    innermost = {path for path in owned if not any(p.startswith(path + "/") for p in owned)} - {""}
    known = {
        "/".join(names[:end])
        for names in (path.split("/") for path in owned)
        for end in range(1, 1 + len(names))
    }

    def layer(operation: Operation) -> str:
        # A network that a module applies, such as a body, adds its class to the path, which no
        # parameter has.
        found = ""
        for name in operation.path.split("/"):
            inner = f"{found}/{name}".strip("/")
            found = inner if inner in known else found
        return found if found in innermost else operation.path

    rows = []
    for path, run in groupby(operations, key=layer):
        for part in _parts(list(run)):
            if path in owned or any(map(_notable, part)):
                rows.append(_row(path, part, owned.pop(path, 0)))
    return rows + [Row(path, "unused", (), n, 0, 0, (), ()) for path, n in owned.items() if n]


def _notable(operation: Operation) -> bool:
    return operation.multiply_adds > 0 or operation.moved


def _parts(run: Sequence[Operation]) -> Iterator[list[Operation]]:
    """Splits a module's run so that each part has one notable operation."""
    part: list[Operation] = []
    for operation in run:
        if _notable(operation) and any(map(_notable, part)):
            yield part
            part = []
        part.append(operation)
    yield part


def _row(path: str, part: Sequence[Operation], parameters: int) -> Row:
    notable = next(filter(_notable, part), None)
    lookup = next((operation for operation in part if operation.primitive == "gather"), None)
    main = notable or lookup
    name = "element-wise" if main is None else main.primitive
    depends = (operation for operation in reversed(part) if operation.fields is not None)
    last = next(depends, part[-1])
    fields = last.fields or ()
    return Row(
        path=path,
        operation=_NAMES.get(name, name.replace("_", " ")),
        shape=last.shape,
        parameters=parameters,
        multiply_adds=sum(operation.multiply_adds for operation in part),
        bytes=last.bytes,
        receptive_field=tuple(field.size for field in fields),
        stride=tuple(field.stride for field in fields),
    )


def totals(rows: Sequence[Row]) -> tuple[int, int, int]:
    """Returns the sums of parameters, multiply-adds and bytes of outputs over the table."""
    return (
        sum(row.parameters for row in rows),
        sum(row.multiply_adds for row in rows),
        sum(row.bytes for row in rows),
    )


_HEADER = (
    "layer",
    "operation",
    "output",
    "parameters",
    "multiply-adds",
    "bytes",
    "receptive field",
    "stride",
)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.path or "(model)",
        row.operation,
        "x".join(map(str, row.shape)),
        str(row.parameters),
        str(row.multiply_adds),
        str(row.bytes),
        "x".join(map(str, row.receptive_field)),
        "x".join(str(stride) for stride in row.stride) if any(row.stride) else "",
    )


def render(rows: Sequence[Row]) -> str:
    """Returns the table as text in aligned columns, totals last."""
    sums = ["total", "", "", *map(str, totals(rows)), "", ""]
    lines = [list(_HEADER), *(list(_cells(row)) for row in rows), sums]
    for line in lines[1:]:
        for column in (3, 4, 5):
            line[column] = f"{int(line[column]):,}" if line[column] != "0" else "-"
    return _aligned(lines, left=3)


def _aligned(lines: Sequence[Sequence[str]], *, left: int) -> str:
    """Aligns cells in columns between rules, the first `left` columns flush left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rule = "-" * max(map(len, texts))
    return "\n".join([texts[0], rule, *texts[1:-1], rule, texts[-1]])


def render_parameters(params: Params) -> str:
    """Returns the arrays of a tree of parameters as text in aligned columns, their sum last.

    >>> print(render_parameters({"dense": {"bias": np.zeros(3), "kernel": np.zeros((400, 3))}}))
    parameter     shape  dtype    numbers
    -------------------------------------
    dense/bias    3      float64        3
    dense/kernel  400x3  float64    1,200
    -------------------------------------
    total                           1,203
    """
    leaves = leaves_by_path(params)
    rows = [
        [path, "x".join(map(str, np.shape(leaf))), str(leaf.dtype), f"{np.size(leaf):,}"]
        for path, leaf in leaves.items()
    ]
    total = ["total", "", "", f"{sum(map(np.size, leaves.values())):,}"]
    return _aligned([["parameter", "shape", "dtype", "numbers"], *rows, total], left=3)
