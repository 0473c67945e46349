"""The text of a compiled program (HLO): its instructions and how often each of them runs."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

_HEADER = re.compile(r"(ENTRY )?%?([\w.-]+) .*-> .*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z0-9-]*)\(")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
# What gives the same numbers in another form, and what moves no numbers at all.
_VIEWS = ("bitcast", "copy", "convert", "reshape", "transpose")
_NAMES = (
    "parameter",
    "constant",
    "iota",
    "partition-id",
    "replica-id",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "opt-barrier",
    "after-all",
    "while",
    "conditional",
    "call",
    "async-start",
    "async-update",
)
_CALLEES = ("calls", "to_apply", "called_computations")


class Array(NamedTuple):
    """Type and shape of an array on one device, such as ("f32", (4, 8))."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        width = re.search(r"\d+", self.dtype)
        bits = int(width.group()) if width else 8 * (self.dtype == "pred")
        return (math.prod(self.shape) * bits + 7) // 8


@dataclasses.dataclass(frozen=True, eq=False)
class Instruction:
    """One line of a program.

    Attributes:
        name: unique within its computation.
        opcode: such as "dot" or "all-reduce".
        arrays: the result, several for a tuple.
        arguments: what stands between its parentheses.
        operands: the instructions of the same computation that it reads.
        attributes: the rest of the line.
        root: whether it is the result of its computation.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    arguments: str
    operands: tuple["Instruction", ...]
    attributes: str
    root: bool

    @property
    def bytes(self) -> int:
        """Of the result."""
        return sum(array.bytes for array in self.arrays)

    @property
    def source(self) -> str:
        """The path of JAX names that it comes from, such as "jit(step)/.../dot_general"."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found.group(1) if found else ""

    def callees(self, *attributes: str) -> list[str]:
        """The computations that these attributes name."""
        named = rf"\b(?:{'|'.join(attributes)})=(\{{[^}}]*\}}|%?[\w.-]+)"
        return [
            name
            for value in re.findall(named, self.attributes)
            for name in re.findall(r"[\w.-]+", value)
        ]


class Execution(NamedTuple):
    """An instruction in its place.

    Attributes:
        instruction: what runs.
        runs: how often, because of the loops around it.
        known: whether that is certain; else a loop around it, whose number of rounds the compiler
            does not know, counts one round.
        fused: whether it is a part of a fusion, whose inner values never reach memory.
    """

    instruction: Instruction
    runs: int
    known: bool
    fused: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A compiled program.

    Attributes:
        computations: the instructions of each computation, in order.
        entry: the name of the computation that is called from outside.
        devices: on how many devices it runs.
    """

    computations: dict[str, tuple[Instruction, ...]]
    entry: str
    devices: int

    @functools.cached_property
    def users(self) -> dict[int, list[Instruction]]:
        """What reads an instruction's result, by the instruction's `id`."""
        found: dict[int, list[Instruction]] = {}
        for computation in self.computations.values():
            for reader in computation:
                for operand in set(map(id, reader.operands)):
                    found.setdefault(operand, []).append(reader)
        return found

    def share(self, value: Instruction, reader: Instruction) -> float:
        """The share of a value that a reader of it reads: less than 1 of what it slices."""
        if reader.opcode in ("dynamic-slice", "slice", "gather") and reader.operands[0] is value:
            return min(1.0, reader.bytes / max(value.bytes, 1))
        if reader.opcode == "dynamic-update-slice" and reader.operands[0] is value:
            return 0.0
        if reader.opcode == "fusion":
            (inner,) = (self.computations[name] for name in reader.callees("calls"))
            places = [n for n, operand in enumerate(reader.operands) if operand is value]
            return max(
                self.share_of_all(one)
                for one in inner
                if one.opcode == "parameter" and int(one.arguments) in places
            )
        return self.share_of_all(reader) if reader.opcode in _VIEWS else 1.0

    def share_of_all(self, value: Instruction) -> float:
        """The largest share of a value that one of its readers reads."""
        readers = self.users.get(id(value), [])
        return max((self.share(value, reader) for reader in readers), default=1.0)

    def traffic(self, instruction: Instruction) -> float:
        """The bytes that one run reads from memory and writes to it; 0 of what only names values.

        Of a slice what is sliced counts, and of an update in place what is new.
        """
        if instruction.opcode in _NAMES or instruction.opcode.endswith("-done"):
            return 0.0
        operands = {id(one): one for one in instruction.operands}.values()
        read = sum(one.bytes * self.share(one, instruction) for one in operands)
        return read + self._written(instruction)

    def _written(self, instruction: Instruction) -> float:
        if instruction.opcode == "dynamic-update-slice":
            return instruction.operands[1].bytes
        if instruction.opcode == "fusion":
            (inner,) = (self.computations[name] for name in instruction.callees("calls"))
            root = next(one for one in inner if one.root)
            roots = root.operands if root.opcode == "tuple" else (root,)
            return sum(
                self._written(one) if one.opcode == "dynamic-update-slice" else one.bytes
                for one in roots
            )
        return instruction.bytes

    def executions(self, weigh: Callable[[Execution], float]) -> list[Execution]:
        """All that a call of the program executes, in order.

        Args:
            weigh: what an execution costs; of a conditional the branch counts that costs the most.
        """
        return self._run(self.entry, 1, True, False, weigh)

    def _run(
        self, name: str, runs: int, known: bool, fused: bool, weigh: Callable[[Execution], float]
    ) -> list[Execution]:
        done: list[Execution] = []
        for one in self.computations[name]:
            done.append(Execution(one, runs, known, fused))
            if one.opcode == "while":
                trips = _TRIPS.search(one.attributes)
                rounds = runs * int(trips.group(1)) if trips else runs
                for body in one.callees("body"):
                    done += self._run(body, rounds, known and trips is not None, fused, weigh)
            elif one.opcode == "conditional":
                branches = [
                    self._run(branch, runs, known, fused, weigh)
                    for branch in one.callees(
                        "branch_computations", "true_computation", "false_computation"
                    )
                ]
                done += max(branches, key=lambda branch: sum(map(weigh, branch)))
            elif one.opcode in ("call", "fusion", "async-start"):
                for callee in one.callees(*_CALLEES):
                    inner = fused or one.opcode == "fusion"
                    done += self._run(callee, runs, known, inner, weigh)
        return done


def parse(text: str) -> Program:
    """The program that `jax.stages.Compiled.as_text` prints."""
    computations: dict[str, tuple[Instruction, ...]] = {}
    entry, name = "", ""
    here: dict[str, Instruction] = {}
    for line in text.splitlines():
        if header := _HEADER.match(line):
            name, here = header.group(2), {}
            entry = name if header.group(1) else entry
        elif line.startswith("}"):
            computations[name] = tuple(here.values())
        elif match := _INSTRUCTION.match(line):
            root, label, result, opcode = match.groups()
            end = _closing(line, match.end())
            arguments = line[match.end() : end]
            here[label] = Instruction(
                name=label,
                opcode=opcode,
                arrays=arrays_of(result),
                arguments=arguments,
                operands=tuple(
                    here[operand]
                    for operand in re.findall(r"%([\w.-]+)", arguments)
                    if operand in here
                ),
                attributes=line[end:],
                root=root is not None,
            )
    counts = re.findall(r"\b(?:replica_count|num_partitions)=(\d+)", text.partition("\n")[0])
    return Program(computations, entry, math.prod(map(int, counts)))


def arrays_of(text: str) -> tuple[Array, ...]:
    """The arrays of a result type, such as "(f32[4,8]{1,0}, pred[])"."""
    return tuple(
        Array(dtype, tuple(int(size.strip("<=")) for size in sizes.split(",") if size))
        for dtype, sizes in _ARRAY.findall(text)
    )


def _closing(line: str, start: int) -> int:
    """The position of the parenthesis that closes the one before `start`."""
    depth = 1
    for position in range(start, len(line)):
        depth += (line[position] == "(") - (line[position] == ")")
        if depth == 0:
            return position
    return len(line)


def multiply_adds(instruction: Instruction) -> int:
    """Of a product: outputs times contracted size; of a convolution: outputs times filter size."""
    size = sum(math.prod(array.shape) for array in instruction.arrays)
    if instruction.opcode == "dot":
        contracted = _numbers(instruction, r"lhs_contracting_dims=\{([\d,]*)\}")
        return size * math.prod(instruction.operands[0].arrays[0].shape[d] for d in contracted)
    if instruction.opcode == "convolution":
        kernel = instruction.operands[1].arrays[0].shape
        labels = re.search(r"dim_labels=\w+_(\w+)->", instruction.attributes)
        features = kernel[labels.group(1).index("o")] if labels else 1
        return size * math.prod(kernel) // features
    return 0


def _numbers(instruction: Instruction, pattern: str) -> Sequence[int]:
    found = re.search(pattern, instruction.attributes)
    return [int(number) for number in found.group(1).split(",") if number] if found else []
