"""Parses the text of a compiled program (HLO): its instructions and how often each of them runs."""

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
# These opcodes give the same numbers in another form.
_VIEWS = ("bitcast", "copy", "convert", "reshape", "transpose")
# These opcodes move no numbers at all.
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
    """The type and shape of an array on one device, such as ("f32", (4, 8))."""

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
        name: the name, which is unique within its computation.
        opcode: the operation, such as "dot" or "all-reduce".
        arrays: the arrays of the result, several for a tuple.
        arguments: the text between its parentheses.
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
        """The size of the result."""
        return sum(array.bytes for array in self.arrays)

    @property
    def source(self) -> str:
        """The path of JAX names that it comes from, such as "jit(step)/.../dot_general"."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match.group(1) if match else ""

    def callees(self, *attributes: str) -> list[str]:
        """Returns the names of the computations that some attributes call."""
        named = rf"\b(?:{'|'.join(attributes)})=(\{{[^}}]*\}}|%?[\w.-]+)"
        return [
            name
            for value in re.findall(named, self.attributes)
            for name in re.findall(r"[\w.-]+", value)
        ]


class Execution(NamedTuple):
    """An instruction in its place in the program.

    Attributes:
        instruction: the instruction that runs.
        runs: how often it runs, because of the loops around it.
        known: whether that number is certain; if not, a loop around it has a number of rounds that
            the compiler does not know, and counts as one round.
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
        devices: the number of devices on which it runs.
    """

    computations: dict[str, tuple[Instruction, ...]]
    entry: str
    devices: int

    @functools.cached_property
    def users(self) -> dict[int, list[Instruction]]:
        """The readers of each instruction's result, by the instruction's `id`."""
        readers: dict[int, list[Instruction]] = {}
        for computation in self.computations.values():
            for reader in computation:
                for operand in set(map(id, reader.operands)):
                    readers.setdefault(operand, []).append(reader)
        return readers

    def share(self, value: Instruction, reader: Instruction) -> float:
        """Returns the share of a value that a reader of it reads; less than 1 for a slice."""
        if reader.opcode in ("dynamic-slice", "slice", "gather") and reader.operands[0] is value:
            return min(1.0, reader.bytes / max(value.bytes, 1))
        if reader.opcode == "dynamic-update-slice" and reader.operands[0] is value:
            return 0.0
        if reader.opcode == "fusion":
            (inner,) = (self.computations[name] for name in reader.callees("calls"))
            places = [n for n, operand in enumerate(reader.operands) if operand is value]
            return max(
                self.share_of_all(parameter)
                for parameter in inner
                if parameter.opcode == "parameter" and int(parameter.arguments) in places
            )
        return self.share_of_all(reader) if reader.opcode in _VIEWS else 1.0

    def share_of_all(self, value: Instruction) -> float:
        """Returns the largest share of a value that one of its readers reads."""
        readers = self.users.get(id(value), [])
        return max((self.share(value, reader) for reader in readers), default=1.0)

    def traffic(self, instruction: Instruction) -> float:
        """Returns the bytes that one run reads from memory and writes to it.

        For a slice only the sliced part counts, and for an update in place only the new part. An
        instruction that only names values moves nothing.
        """
        if instruction.opcode in _NAMES or instruction.opcode.endswith("-done"):
            return 0.0
        operands = {id(operand): operand for operand in instruction.operands}.values()
        read = sum(operand.bytes * self.share(operand, instruction) for operand in operands)
        return read + self._written(instruction)

    def _written(self, instruction: Instruction) -> float:
        if instruction.opcode == "dynamic-update-slice":
            return instruction.operands[1].bytes
        if instruction.opcode == "fusion":
            (inner,) = (self.computations[name] for name in instruction.callees("calls"))
            root = next(instruction for instruction in inner if instruction.root)
            roots = root.operands if root.opcode == "tuple" else (root,)
            return sum(
                self._written(result) if result.opcode == "dynamic-update-slice" else result.bytes
                for result in roots
            )
        return instruction.bytes

    def executions(self, weigh: Callable[[Execution], float]) -> list[Execution]:
        """Lists all instructions that a call of the program executes, in order.

        Args:
            weigh: returns the cost of an execution; only the most expensive branch of a conditional
                is listed.
        """
        return self._run(self.entry, 1, True, False, weigh)

    def _run(
        self, name: str, runs: int, known: bool, fused: bool, weigh: Callable[[Execution], float]
    ) -> list[Execution]:
        done: list[Execution] = []
        for instruction in self.computations[name]:
            done.append(Execution(instruction, runs, known, fused))
            if instruction.opcode == "while":
                trips = _TRIPS.search(instruction.attributes)
                rounds = runs * int(trips.group(1)) if trips else runs
                for body in instruction.callees("body"):
                    done += self._run(body, rounds, known and trips is not None, fused, weigh)
            elif instruction.opcode == "conditional":
                branches = [
                    self._run(branch, runs, known, fused, weigh)
                    for branch in instruction.callees(
                        "branch_computations", "true_computation", "false_computation"
                    )
                ]
                done += max(branches, key=lambda branch: sum(map(weigh, branch)))
            elif instruction.opcode in ("call", "fusion", "async-start"):
                for callee in instruction.callees(*_CALLEES):
                    inner = fused or instruction.opcode == "fusion"
                    done += self._run(callee, runs, known, inner, weigh)
        return done


def parse(text: str) -> Program:
    """Parses the program that `jax.stages.Compiled.as_text` prints."""
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
    """Parses a result type.

    >>> arrays_of("(f32[4,8]{1,0}, pred[])")
    (Array(dtype='f32', shape=(4, 8)), Array(dtype='pred', shape=()))
    """
    return tuple(
        Array(dtype, tuple(int(size.strip("<=")) for size in sizes.split(",") if size))
        for dtype, sizes in _ARRAY.findall(text)
    )


def _closing(line: str, start: int) -> int:
    """Returns the position of the parenthesis that closes the one before `start`."""
    depth = 1
    for position in range(start, len(line)):
        depth += (line[position] == "(") - (line[position] == ")")
        if depth == 0:
            return position
    return len(line)


def multiply_adds(instruction: Instruction) -> int:
    """Counts the multiply-adds of a product or a convolution; any other instruction has none."""
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
    match = re.search(pattern, instruction.attributes)
    return [int(number) for number in match.group(1).split(",") if number] if match else []
