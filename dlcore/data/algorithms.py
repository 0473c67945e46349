"""Sequences that follow an algorithm, which a model must infer (Graves et al. 2014, section 4).

A task knows how to draw a problem of a given length, how to read a problem that a person wrote, and
how to encode a problem as inputs and correct outputs. Bits of inputs and outputs are 0 or 1; a step
whose output does not count has a target of 0.

Shapes: B batch, T steps, L length, D inputs, O outputs, V bits of a vector.
"""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dlcore.data.sources import Arrays, Batch
from dlcore.errors import InputError

# Vectors of an item of associative recall (section 4.3), and bits before one that they predict, of
# which 5 are a 6-gram (section 4.4).
ITEM, CONTEXT = 3, 5
# The share of the vectors that priority sort gives out, 16 of 20 (section 4.5).
_SORTED = 0.8
# That a person may ask for.
_MOST_REPEATS = 1000
# A problem as its task has it.
Problem = Any


class Encoded(NamedTuple):
    """A problem as arrays.

    Attributes:
        input: the inputs (T, D).
        target: the correct outputs (T, O).
        mask: (T,), 1 where the output counts.
    """

    input: np.ndarray
    target: np.ndarray
    mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class Algorithm(abc.ABC):
    """An algorithmic task.

    Attributes:
        bits: V, the number of bits of a vector.
        shortest: the least length.
        usual: the default of the greatest length to train on.
        written: a description of how a person writes a problem.
    """

    bits: int = 8

    shortest: ClassVar[int] = 1
    usual: ClassVar[int] = 10
    written: ClassVar[str] = "vectors of {bits} bits with spaces between them"

    @property
    @abc.abstractmethod
    def inputs(self) -> int:
        """D, the number of inputs."""

    @property
    def outputs(self) -> int:
        """O, the number of outputs."""
        return self.bits

    @abc.abstractmethod
    def steps(self, length: int) -> int:
        """Returns T, the number of steps, of the longest problem of a length."""

    def lengths(self, longest: int) -> range:
        """Returns the lengths to train on."""
        return range(self.shortest, longest + 1)

    @abc.abstractmethod
    def draw(self, length: int, rng: np.random.Generator) -> Problem:
        """Draws a problem of a length."""

    @abc.abstractmethod
    def read(self, text: str) -> Problem:
        """Reads a problem that a person wrote; raises ValueError if it is not as `written`."""

    @abc.abstractmethod
    def encode(self, problem: Problem) -> Encoded:
        """Returns a problem as arrays."""

    def best(self, problem: Problem) -> float:
        """Returns the bits that the best predictor of the outputs needs; 0 if they are certain."""
        del problem
        return 0.0

    def _vectors(self, length: int, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, 2, (length, self.bits)).astype(np.float32)

    def _words(self, words: Sequence[str]) -> np.ndarray:
        """Reads vectors, (L, V), at least one."""
        if not words or any(len(word) != self.bits or set(word) - {"0", "1"} for word in words):
            raise ValueError(words)
        return np.array([[*map(int, word)] for word in words], np.float32)


def _blank(steps: int, algorithm: Algorithm) -> Encoded:
    shapes = (steps, algorithm.inputs), (steps, algorithm.outputs), (steps,)
    return Encoded(*(np.zeros(shape, np.float32) for shape in shapes))


@dataclasses.dataclass(frozen=True)
class Copy(Algorithm):
    """The task to repeat vectors after a delimiter (section 4.1)."""

    @property
    def inputs(self) -> int:
        return self.bits + 1

    def steps(self, length: int) -> int:
        return 2 * length + 1

    def draw(self, length: int, rng: np.random.Generator) -> Problem:
        return self._vectors(length, rng)

    def read(self, text: str) -> Problem:
        return self._words(text.split())

    def solve(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the vectors to output."""
        return vectors

    def encode(self, problem: Problem) -> Encoded:
        length = len(problem)
        found = _blank(2 * length + 1, self)
        found.input[:length, : self.bits] = problem
        found.input[length, self.bits] = 1
        found.target[length + 1 :] = self.solve(problem)
        found.mask[length + 1 :] = 1
        return found


@dataclasses.dataclass(frozen=True)
class Sort(Copy):
    """The task to sort vectors as whole numbers, ascending; their first bit is the highest."""

    bits: int = 4
    usual: ClassVar[int] = 8

    def solve(self, vectors: np.ndarray) -> np.ndarray:
        # The last key of lexsort is the first to compare by.
        return vectors[np.lexsort(vectors.T[::-1])]


@dataclasses.dataclass(frozen=True)
class RepeatCopy(Algorithm):
    """The task to repeat vectors a given number of times and then output an end bit (section 4.2).

    The number has a channel of its own, with mean 0 and variance 1 in training, separate from the
    channel of the delimiter, so that a value of 0 can be seen too.

    Attributes:
        repeats: the greatest number of repeats.
    """

    repeats: int = 5
    usual: ClassVar[int] = 5
    written: ClassVar[str] = "vectors of {bits} bits and the number of repeats, as 01 11 x3"

    @property
    def inputs(self) -> int:
        return self.bits + 2

    @property
    def outputs(self) -> int:
        return self.bits + 1

    def steps(self, length: int) -> int:
        return length + 1 + length * self.repeats + 1

    def draw(self, length: int, rng: np.random.Generator) -> Problem:
        return self._vectors(length, rng), int(rng.integers(1, self.repeats + 1))

    def read(self, text: str) -> Problem:
        *words, count = text.split()
        if not count.startswith("x") or not 1 <= int(count[1:]) <= _MOST_REPEATS:
            raise ValueError(text)
        return self._words(words), int(count[1:])

    def encode(self, problem: Problem) -> Encoded:
        vectors, count = problem
        length, start = len(vectors), len(vectors) + 1
        found = _blank(start + length * count + 1, self)
        found.input[:length, : self.bits] = vectors
        deviation = math.sqrt((self.repeats**2 - 1) / 12) or 1.0
        found.input[length, self.bits :] = 1, (count - (self.repeats + 1) / 2) / deviation
        found.target[start:-1, : self.bits] = np.tile(vectors, (count, 1))
        found.target[-1, self.bits] = 1
        found.mask[start:] = 1
        return found


@dataclasses.dataclass(frozen=True)
class AssociativeRecall(Algorithm):
    """The task to recall the item that followed a given one, with items of 3 vectors (section 4.3).

    A delimiter comes before each item, and another delimiter encloses the item of the query.
    """

    bits: int = 6
    shortest: ClassVar[int] = 2
    usual: ClassVar[int] = 6
    written: ClassVar[str] = (
        f"items of {ITEM} vectors of {{bits}} bits with commas between them, and one of them again "
        "after a question mark"
    )

    @property
    def inputs(self) -> int:
        return self.bits + 2

    def steps(self, length: int) -> int:
        return (ITEM + 1) * (length + 2)

    def draw(self, length: int, rng: np.random.Generator) -> Problem:
        items = self._vectors(length * ITEM, rng).reshape(length, ITEM, self.bits)
        return items, int(rng.integers(0, length - 1))

    def read(self, text: str) -> Problem:
        listed, query = text.split("?")
        *items, asked = [self._words(item.split()) for item in [*listed.split(","), query]]
        if any(len(item) != ITEM for item in [*items, asked]):
            raise ValueError(text)
        return np.stack(items), [item.tolist() for item in items[:-1]].index(asked.tolist())

    def encode(self, problem: Problem) -> Encoded:
        items, asked = problem
        found = _blank(self.steps(len(items)), self)
        shown = np.concatenate([items, items[asked][None]])
        blocks = found.input[: (ITEM + 1) * len(shown)].reshape(len(shown), ITEM + 1, self.inputs)
        blocks[:, 1:, : self.bits] = shown
        blocks[:-1, 0, self.bits] = 1
        blocks[-1, 0, self.bits + 1] = 1
        found.input[-ITEM - 1, self.bits + 1] = 1
        found.target[-ITEM:] = items[asked + 1]
        found.mask[-ITEM:] = 1
        return found


@dataclasses.dataclass(frozen=True)
class DynamicNgrams(Algorithm):
    """The task to predict bits drawn from a table by the 5 bits before them (section 4.4).

    Each sequence has a table of its own, with 32 probabilities of a 1 that are drawn from
    Beta(1/2, 1/2), so that a predictor must count as the sequence goes on. The best predictor is
    eq. 10.
    """

    bits: int = 1
    shortest: ClassVar[int] = CONTEXT + 1
    usual: ClassVar[int] = 200
    written: ClassVar[str] = f"{CONTEXT + 1} bits or more, 0 or 1 each"

    @property
    def inputs(self) -> int:
        return 1

    def steps(self, length: int) -> int:
        return length - 1

    def lengths(self, longest: int) -> range:
        return range(longest, longest + 1)

    def draw(self, length: int, rng: np.random.Generator) -> Problem:
        # Lists, of which Python reads single numbers much faster than of arrays.
        table = rng.beta(0.5, 0.5, 1 << CONTEXT).tolist()
        chances = rng.random(length).tolist()
        bits = [int(chance < 0.5) for chance in chances[:CONTEXT]]
        context = sum(bit << place for place, bit in enumerate(reversed(bits)))
        for chance in chances[CONTEXT:]:
            bits.append(int(chance < table[context]))
            context = (2 * context + bits[-1]) % len(table)
        return np.array(bits, np.float32)

    def read(self, text: str) -> Problem:
        bits = "".join(text.split())
        if len(bits) < self.shortest or set(bits) - {"0", "1"}:
            raise ValueError(text)
        return np.array([*map(int, bits)], np.float32)

    def encode(self, problem: Problem) -> Encoded:
        found = _blank(len(problem) - 1, self)
        found.input[:, 0] = problem[:-1]
        found.target[CONTEXT - 1 :, 0] = problem[CONTEXT:]
        found.mask[CONTEXT - 1 :] = 1
        return found

    def best(self, problem: Problem) -> float:
        """Returns the bits that the estimator (N1 + 1/2) / (N0 + N1 + 1) needs, eq. 10."""
        counts, needed = [[0.5, 0.5] for _ in range(1 << CONTEXT)], 0.0
        bits = problem.astype(int).tolist()
        context = sum(bit << place for place, bit in enumerate(reversed(bits[:CONTEXT])))
        for bit in bits[CONTEXT:]:
            seen = counts[context]
            needed -= math.log2(seen[bit] / (seen[0] + seen[1]))
            seen[bit] += 1
            context = (2 * context + bit) % len(counts)
        return needed


@dataclasses.dataclass(frozen=True)
class PrioritySort(Algorithm):
    """The task to output four fifths of the vectors in descending order of priority (section 4.5).

    The priorities are uniform in -1..1, on a channel of their own.
    """

    usual: ClassVar[int] = 10
    written: ClassVar[str] = "vectors of {bits} bits and their priorities, as 01:0.5 11:-0.2"

    @property
    def inputs(self) -> int:
        return self.bits + 2

    def steps(self, length: int) -> int:
        return length + 1 + math.ceil(_SORTED * length)

    def draw(self, length: int, rng: np.random.Generator) -> Problem:
        return self._vectors(length, rng), rng.uniform(-1, 1, length).astype(np.float32)

    def read(self, text: str) -> Problem:
        words, priorities = zip(*(word.split(":") for word in text.split()), strict=True)
        numbers = np.array([*map(float, priorities)], np.float32)
        if not (np.abs(numbers) <= 1).all():
            raise ValueError(text)
        return self._words(words), numbers

    def encode(self, problem: Problem) -> Encoded:
        vectors, priorities = problem
        length = len(vectors)
        found = _blank(self.steps(length), self)
        found.input[:length, : self.bits] = vectors
        found.input[:length, self.bits] = priorities
        found.input[length, self.bits + 1] = 1
        order = np.argsort(-priorities, kind="stable")
        found.target[length + 1 :] = vectors[order][: len(found.target) - length - 1]
        found.mask[length + 1 :] = 1
        return found


ALGORITHMS: dict[str, type[Algorithm]] = {
    "copy": Copy,
    "repeat_copy": RepeatCopy,
    "associative_recall": AssociativeRecall,
    "dynamic_ngrams": DynamicNgrams,
    "priority_sort": PrioritySort,
    "sort": Sort,
}


def padded(
    algorithm: Algorithm, problems: Sequence[Problem], lengths: Sequence[int], steps: int
) -> Batch:
    """Returns problems as the arrays of a batch, padded to T steps.

    Args:
        algorithm: the task.
        problems: B problems.
        lengths: the length of each problem.
        steps: T.

    Returns:
        "input" (B, T, D), "target" (B, T, O), "mask" (B, T), which is 0 in padding, "length" int32
        (B,), and "best" (B,), the bits that the best predictor needs.
    """
    count = len(problems)
    shapes = (count, steps, algorithm.inputs), (count, steps, algorithm.outputs), (count, steps)
    whole = Encoded(*(np.zeros(shape, np.float32) for shape in shapes))
    for row, problem in enumerate(problems):
        for array, part in zip(whole, algorithm.encode(problem), strict=True):
            array[row, : len(part)] = part
    best = np.array([algorithm.best(problem) for problem in problems], np.float32)
    return {**whole._asdict(), "length": np.array(lengths, np.int32), "best": best}


def draw_batch(
    algorithm: Algorithm, lengths: range, numbers: Sequence[int], *, key: Sequence[int]
) -> Batch:
    """Draws problems by their numbers, all padded to the steps of the longest possible one.

    A problem is a function of the key and its number alone, whatever its position in a batch; all
    lengths are equally likely.

    Args:
        algorithm: the task.
        lengths: the possible lengths, from the shortest to the longest.
        numbers: the numbers of the B problems.
        key: integers of 0 or more that tell one set of problems from another.

    Returns:
        The batch of `padded`.
    """
    problems, drawn = [], []
    for number in numbers:
        rng = np.random.default_rng([*key, number])
        drawn.append(int(rng.integers(lengths.start, lengths.stop)))
        problems.append(algorithm.draw(drawn[-1], rng))
    return padded(algorithm, problems, drawn, algorithm.steps(lengths[-1]))


def draw_split(algorithm: Algorithm, lengths: range, count: int, *, key: Sequence[int]) -> Arrays:
    """Returns `count` problems of a key, each length in turn, as a split."""
    drawn = [lengths[number % len(lengths)] for number in range(count)]
    problems = [
        algorithm.draw(length, np.random.default_rng([*key, number]))
        for number, length in enumerate(drawn)
    ]
    return Arrays(padded(algorithm, problems, drawn, algorithm.steps(lengths[-1])))


def read_problem(algorithm: Algorithm, line: int, text: str) -> Problem:
    """Reads a problem that a person wrote.

    Args:
        algorithm: the task.
        line: the number of the problem's line, for errors.
        text: the problem.

    Raises:
        InputError: when the text does not describe a problem of the task.
    """
    try:
        return algorithm.read(text)
    except (ValueError, TypeError):
        expected = algorithm.written.format(bits=algorithm.bits)
        shown = text if len(text) <= 60 else f"{text[:60]}..."
        raise InputError(
            f"input {line}, {shown!r}, is not a problem of this task; write {expected}"
        ) from None
