"""The one exception that means "the input is at fault, not the code"."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class InputError(ValueError):
    """Bad input from outside: a flag, a file, a data set, a device layout.

    The message is one line that says what was given, what is possible and what to do. The
    experiments print it without a traceback and exit with status 2.
    """


class Diverged(InputError):
    """The loss or its gradient stopped being finite, and stayed so."""


def choose(kind: str, given: str, possible: object) -> InputError:
    """The error for a name that is not among the possible ones.

    Args:
        kind: what the name names, such as "optimizer".
        given: the name that was given.
        possible: an iterable of the names that exist.
    """
    names = ", ".join(sorted(map(str, possible)))  # type: ignore[call-overload]
    return InputError(f"unknown {kind} {given!r}; choose one of: {names}")


def pick(kind: str, given: str, table: Mapping[str, T]) -> T:
    """What a table of names holds under the given one.

    Raises:
        InputError: for a name that is not in the table, see `choose`.
    """
    if given not in table:
        raise choose(kind, given, table)
    return table[given]
