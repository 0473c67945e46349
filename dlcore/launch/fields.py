"""The fields of a configuration: each knows its default, its possible values and its purpose.

    class Config(launch.Config):
        model: str = choice("lenet5", IMAGE_MODELS, "network to train")
        label_smoothing: float = number(0.0, 0, 1, "share of the target spread over all classes")

A field says under which other values it is read (`when`), so that a flag that the chosen model does
not read is refused and not silently ignored.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

from dlcore.errors import InputError, choose
from dlcore.files import is_utf8

# The largest integer that indices, steps and seeds can have on every device.
LARGEST = 2**31 - 1
# The largest float32.
LARGEST_NUMBER = 3.4e38
# File systems allow no longer paths and names.
_PATH_BYTES, _NAME_BYTES = 4095, 255

Value: TypeAlias = Any
# Values of another field under which a field is read: a collection of them, or a predicate.
Condition: TypeAlias = Mapping[str, Collection[Value] | Callable[[Value], bool]]

# A field that says how the user's own files are read.
FILES: Condition = {"data_path": lambda path: path is not None}


class Kind(abc.ABC):
    """The values that a field can take.

    Attributes:
        several: None for one value; "repeated" for a flag that may be given several times, "listed"
            for values with commas between them.
    """

    several: str | None = None

    @abc.abstractmethod
    def describe(self) -> str:
        """Returns the possible values in words, such as "a number from 0 to 1"."""

    @abc.abstractmethod
    def parse(self, text: str) -> Value:
        """Parses the text of a flag's value; raises ValueError when it cannot."""

    @abc.abstractmethod
    def allows(self, value: Value) -> bool:
        """Returns whether the value is possible."""

    def error(self, name: str, value: Value) -> InputError:
        """Returns the error for a value that is not possible."""
        return InputError(f"--{name}={_short(value)} is not {self.describe()}")

    def check(self, name: str, value: Value) -> None:
        """Raises InputError when the value of the field `name` is not possible."""
        if not self.allows(value):
            raise self.error(name, value)


def _short(value: Value) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


@dataclasses.dataclass(frozen=True)
class Integer(Kind):
    """Integers from `low` to `high`."""

    low: int
    high: int

    def describe(self) -> str:
        return f"an integer from {self.low} to {self.high}"

    def parse(self, text: str) -> int:
        return int(text)

    def allows(self, value: Value) -> bool:
        return isinstance(value, int) and type(value) is not bool and self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class Number(Kind):
    """Finite numbers from `low` to `high`, or below `high`."""

    low: float
    high: float
    below: bool

    def describe(self) -> str:
        if self.high == LARGEST_NUMBER:
            return f"a number from {self.low:g} on"
        return f"a number from {self.low:g} to {'below ' if self.below else ''}{self.high:g}"

    def parse(self, text: str) -> float:
        return float(text)

    def allows(self, value: Value) -> bool:
        if not isinstance(value, (int, float)) or type(value) is bool or not math.isfinite(value):
            return False
        return self.low <= value and (value < self.high if self.below else value <= self.high)


@dataclasses.dataclass(frozen=True)
class Column(Kind):
    """A column of a table: its number, from 1 on, or its name."""

    def describe(self) -> str:
        return "the number of a column from 1 on, or its name"

    def parse(self, text: str) -> int | str:
        return int(text) if text.isdecimal() else text

    def allows(self, value: Value) -> bool:
        named = isinstance(value, str) and bool(value) and "\0" not in value
        return named or Integer(1, LARGEST).allows(value)


@dataclasses.dataclass(frozen=True)
class Choice(Kind):
    """One of several names."""

    names: tuple[str, ...]

    def describe(self) -> str:
        return f"one of {', '.join(self.names)}"

    def parse(self, text: str) -> str:
        return text

    def allows(self, value: Value) -> bool:
        return value in self.names

    def error(self, name: str, value: Value) -> InputError:
        return choose(name.replace("_", " "), str(value), self.names)


@dataclasses.dataclass(frozen=True)
class Switch(Kind):
    """True or false."""

    def describe(self) -> str:
        return "true or false"

    def parse(self, text: str) -> bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"

    def allows(self, value: Value) -> bool:
        return isinstance(value, bool)


@dataclasses.dataclass(frozen=True)
class Text(Kind):
    """Any text, one or several."""

    several: str | None = None

    def describe(self) -> str:
        return "a text in UTF-8 without NUL characters"

    def parse(self, text: str) -> str:
        return text

    def allows(self, value: Value) -> bool:
        values = value if self.several else (value,)
        return isinstance(values, tuple) and all(
            isinstance(one, str) and self.allows_one(one) for one in values
        )

    def allows_one(self, text: str) -> bool:
        """Returns whether one value is possible."""
        return "\0" not in text and is_utf8(text)


@dataclasses.dataclass(frozen=True)
class Path(Text):
    """A path that a file system can hold, one or several; it need not be UTF-8."""

    def describe(self) -> str:
        return (
            f"a path of at most {_PATH_BYTES} bytes with names of at most {_NAME_BYTES}, "
            "without NUL characters"
        )

    def allows_one(self, text: str) -> bool:
        path = text.encode(errors="surrogateescape")
        names = path.split(b"/")
        return (
            b"\0" not in path
            and len(path) <= _PATH_BYTES
            and all(len(name) <= _NAME_BYTES for name in names)
        )


@dataclasses.dataclass(frozen=True)
class Spec:
    """The rules of a field, beside its default and its type.

    Attributes:
        kind: the possible values; None is possible too where it is the default.
        help: what the field does, in a few words.
        free: whether the field may change when a run continues. Such a field decides where, how,
            how long and at which learning rates the run goes on, not what is trained on which data.
        when: the values of other fields under which this one is read. A condition on a field that
            a configuration lacks holds.
    """

    kind: Kind
    help: str
    free: bool = False
    when: Condition = dataclasses.field(default_factory=dict)


def _field(default: Value, kind: Kind, help: str, free: bool, when: Condition | None) -> Any:
    return dataclasses.field(default=default, metadata={"spec": Spec(kind, help, free, when or {})})


def integer(
    default: int | None,
    low: int,
    high: int,
    help: str,
    *,
    free: bool = False,
    when: Condition | None = None,
) -> Any:
    """Returns a field of integers from `low` to `high`; a default of None means "not given"."""
    return _field(default, Integer(low, high), help, free, when)


def number(
    default: float | None,
    low: float,
    high: float,
    help: str,
    *,
    below: bool = False,
    free: bool = False,
    when: Condition | None = None,
) -> Any:
    """Returns a field of finite numbers from `low` to `high`, or to `below` that."""
    return _field(default, Number(low, high, below), help, free, when)


def column(help: str, *, free: bool = False, when: Condition | None = None) -> Any:
    """Returns a field for a column of a table; None, the default, lets the table decide."""
    return _field(None, Column(), help, free, when)


def choice(
    default: str | None,
    names: Collection[str],
    help: str,
    *,
    free: bool = False,
    when: Condition | None = None,
) -> Any:
    """Returns a field that takes one of several names; the help lists them."""
    return _field(default, Choice(tuple(names)), help, free, when)


def switch(default: bool, help: str, *, free: bool = False, when: Condition | None = None) -> Any:
    """Returns a field that is on or off: --NAME, --noNAME."""
    return _field(default, Switch(), help, free, when)


def text(
    default: str | None, help: str, *, free: bool = False, when: Condition | None = None
) -> Any:
    """Returns a field of any text."""
    return _field(default, Text(), help, free, when)


def texts(help: str, *, free: bool = False, when: Condition | None = None) -> Any:
    """Returns a field of texts, none by default; its flag may be given several times."""
    return _field((), Text("repeated"), help, free, when)


def names(help: str, *, free: bool = False, when: Condition | None = None) -> Any:
    """Returns a field of names, none by default; its flag takes them with commas between them."""
    return _field((), Text("listed"), help, free, when)


def path(
    default: str | None, help: str, *, free: bool = False, when: Condition | None = None
) -> Any:
    """Returns a field of a path."""
    return _field(default, Path(), help, free, when)


def paths(help: str, *, free: bool = False, when: Condition | None = None) -> Any:
    """Returns a field of paths, none by default; its flag may be given several times."""
    return _field((), Path("repeated"), help, free, when)


@dataclasses.dataclass(frozen=True)
class Numbered(Kind):
    """Integers from `low` on, any number of them."""

    low: int
    several: str | None = "repeated"

    def describe(self) -> str:
        return f"an integer from {self.low} to {LARGEST}"

    def parse(self, text: str) -> int:
        return int(text)

    def allows(self, value: Value) -> bool:
        one = Integer(self.low, LARGEST)
        return isinstance(value, Sequence) and all(one.allows(item) for item in value)


def integers(low: int, help: str, *, free: bool = False, when: Condition | None = None) -> Any:
    """Returns a field of integers from `low` on, none by default; its flag may be repeated."""
    return _field((), Numbered(low), help, free, when)
