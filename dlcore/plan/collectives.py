"""Reads the collectives of a compiled program: the data that devices send each other in one step.

In this module, n is the number of devices of a group.
"""

import dataclasses
import math
import re
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dlcore.plan.hlo import Execution, Instruction, Program, parse

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
        kind: one of `KINDS`.
        runs: how often it runs in one call of the program, because of the loops around it.
        known: whether that number is certain, see `hlo.Execution`.
        operand_bytes: the input data of each device, in one run.
        result_bytes: the output data of each device, in one run.
        group: the numbers of the devices of one group, the group of device 0 where it takes part;
            numbers count along the axes of the mesh, the last fastest.
        source: the path of JAX names that it comes from.
    """

    kind: str
    runs: int
    known: bool
    operand_bytes: int
    result_bytes: int
    group: tuple[int, ...]
    source: str

    @property
    def sent_bytes(self) -> float:
        """The bytes that each device sends in all runs, by the formulas of a ring.

        Each part of 1/n of the data makes n - 1 hops. A reduction whose result all devices get is
        a reduce-scatter and an all-gather, so it makes them twice (Patarasuk & Yuan 2009).
        """
        ring = _ring(len(self.group))
        sent = {
            "all-reduce": 2 * ring * self.operand_bytes,
            "all-gather": ring * self.result_bytes,
            "reduce-scatter": ring * self.operand_bytes,
            "all-to-all": ring * self.operand_bytes,
            "ragged-all-to-all": ring * self.operand_bytes,
        }
        return self.runs * sent.get(self.kind, float(self.operand_bytes))

    def axes(self, mesh: Mesh) -> tuple[str, ...]:
        """Returns the axes of the mesh along which its devices communicate."""
        places = np.unravel_index(np.array(self.group, int), mesh.devices.shape)
        return tuple(
            name for name, along in zip(mesh.axis_names, places, strict=True) if np.ptp(along) > 0
        )


def collectives(compiled: jax.stages.Compiled | str) -> list[Collective]:
    """Lists the collectives of a compiled program, in order of execution.

    An asynchronous collective, with a start and a done, counts once. Only the branch of a
    conditional that sends the most counts. Collectives over groups of a single device are left out.

    Args:
        compiled: the result of `jax.jit(f).lower(...).compile()`, or its text.
    """
    text = compiled if isinstance(compiled, str) else compiled.as_text()
    return collectives_of(parse(text or ""))


def collectives_of(program: Program) -> list[Collective]:
    """Lists the collectives of a parsed program, see `collectives`."""

    def sent(execution: Execution) -> float:
        collective = _collective(execution, program)
        return collective.sent_bytes if collective else 0.0

    candidates = (_collective(execution, program) for execution in program.executions(sent))
    return [collective for collective in candidates if collective and len(collective.group) > 1]


def _collective(execution: Execution, program: Program) -> Collective | None:
    instruction = execution.instruction
    kind = instruction.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    # The other operands of a ragged exchange say where the pieces begin and end.
    operands = instruction.operands[: 1 if kind == "ragged-all-to-all" else None]
    operand = sum(instruction.bytes for instruction in operands)
    group = _group(instruction, program.devices)
    result = {"all-gather": operand * len(group), "reduce-scatter": operand // len(group)}
    return Collective(
        kind=kind,
        runs=execution.runs,
        known=execution.known,
        operand_bytes=operand,
        result_bytes=result.get(kind, operand),
        group=group,
        source=instruction.source,
    )


def _ring(n: int) -> float:
    """Returns the share of the data that each of n devices sends to spread every part to all."""
    return (n - 1) / n


def _group(instruction: Instruction, devices: int) -> tuple[int, ...]:
    """Returns the devices of the first group; of a permutation, those linked with the first."""
    text = instruction.attributes
    pairs = re.search(r"source_target_pairs=\{(.*?)\}(?!,\{)", text)
    if pairs:
        return _linked(_numbers(pairs.group(1)))
    if lists := re.search(r"replica_groups=\{\{([\d,]*)\}", text):
        return tuple(_numbers(lists.group(1)))
    # [groups, n]<=[sizes]T(order): consecutive numbers, reshaped, transposed and reshaped again.
    if grid := re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", text):
        return tuple(_grid(grid.group(3)).reshape(-1, int(grid.group(2)))[0].tolist())
    # mesh['a'=2,'b'=4] {'a','b':(2)2}: axes by name; the second is split, and (2)2 names the inner
    # part of size 2 that follows an outer part of size 2.
    named = re.search(r"replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?)\))? ?\{(.*?)\}", text)
    if named:
        return _along(*named.groups())
    return tuple(range(devices))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _grid(text: str) -> np.ndarray:
    """Returns the numbers of the devices in the order that "[2,4]T(1,0)" describes."""
    sizes, _, order = text.partition("T")
    grid = np.arange(math.prod(_numbers(sizes))).reshape(_numbers(sizes))
    return (grid.transpose(_numbers(order)) if order else grid).reshape(-1)


def _along(mesh: str, ids: str | None, axes: str) -> tuple[int, ...]:
    """Returns the first group along the named axes of a mesh."""
    sizes = {name: int(size) for name, size in re.findall(r"'?([\w.-]+)'?=(\d+)", mesh)}
    numbers = np.arange(math.prod(sizes.values()))
    if ids:
        numbers = _grid(ids) if ids.startswith("[") else np.array(_numbers(ids))
    index: list[Any] = [0] * len(sizes)
    numbers = numbers.reshape(tuple(sizes.values()))
    for name, before, size in re.findall(r"'?([\w.-]+)'?(?::\((\d+)\)(\d+))?(?:,|$)", axes):
        whole = sizes[name]
        stride = whole // (int(before) * int(size)) if before else 1
        index[list(sizes).index(name)] = np.arange(int(size) if before else whole) * stride
    selected = [np.atleast_1d(indices) for indices in index]
    return tuple(numbers[np.ix_(*selected)].reshape(-1).tolist())


def _linked(ends: list[int]) -> tuple[int, ...]:
    """Returns the devices that (source, target, ...) pairs link with the first that sends."""
    pairs = [pair for pair in zip(ends[::2], ends[1::2], strict=True) if pair[0] != pair[1]]
    reached = set(pairs[0]) if pairs else set(ends[:1])
    for _ in pairs:
        grown = {end for pair in pairs if reached & set(pair) for end in pair}
        if grown <= reached:
            break
        reached |= grown
    return tuple(sorted(reached))
