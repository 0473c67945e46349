"""The exception for mistakes in the input, as opposed to mistakes in the code."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class InputError(ValueError):
    """An error in input from outside: a flag, a file, a data set, a device layout.

    The message, in one line, names the given value, the possible values and the remedy. The
    experiments print it without a traceback and exit with status 2.
    """


class Diverged(InputError):
    """An error for training that cannot continue because its numbers stay infinite or NaN."""


def choose(kind: str, given: str, possible: Iterable[object]) -> InputError:
    """Returns the error for a name that is not among the possible ones.

    Args:
        kind: the kind of thing that has the name, such as "optimizer".
        given: the unknown name.
        possible: the names that exist.

    >>> choose("norm", "rsm", ["rms", "layer"])
    InputError("unknown norm 'rsm'; choose one of: layer, rms")
    """
    names = ", ".join(sorted(map(str, possible)))
    return InputError(f"unknown {kind} {given!r}; choose one of: {names}")


def pick(kind: str, given: str, table: Mapping[str, T]) -> T:
    """Returns the entry of a table that has the given name.

    Raises:
        InputError: for a name that is not in the table, see `choose`.

    >>> pick("norm", "rms", {"layer": 1, "rms": 2})
    2
    """
    if given not in table:
        raise choose(kind, given, table)
    return table[given]
