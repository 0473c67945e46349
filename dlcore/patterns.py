"""Regular expressions from users, whose searches are limited in time.

Python's own engine tries every way to match. For an expression such as (a+)+$ the number of ways
doubles with each character of the text, and nothing ends the search.
"""

from typing import Any

import regex

from dlcore.errors import InputError

_SECONDS = 2.0  # for one text; a line of a million characters takes a tenth of one


class Pattern:
    """A regular expression in the syntax of Python's `re`, which the library `regex` extends.

    Attributes:
        groups: the number of its groups.

    Raises:
        InputError: when the text is not a regular expression.

    >>> Pattern("splitter 'regex:b+'", "b+").findall("abba b")
    ['bb', 'b']
    """

    def __init__(self, name: str, text: str):
        """Compiles an expression.

        Args:
            name: the name of the expression in error messages, such as "rule 'bias$'".
            text: the expression.
        """
        self._name = name
        try:
            self._compiled: Any = regex.compile(text)
        except (regex.error, RecursionError, OverflowError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{name} is not a regular expression: {reason}") from None
        self.groups: int = self._compiled.groups

    def search(self, text: str) -> bool:
        """Returns whether the expression matches anywhere in a text.

        Raises:
            InputError: when the search takes too long.
        """
        return self._in_time(self._compiled.search, text) is not None

    def findall(self, text: str) -> list[Any]:
        """Returns the matches in a text, or the parts captured by the groups, as `re` does.

        Raises:
            InputError: when the search takes too long.
        """
        return self._in_time(self._compiled.findall, text)

    def _in_time(self, find: Any, text: str) -> Any:
        try:
            return find(text, timeout=_SECONDS)
        except TimeoutError:
            shown = text if len(text) <= 40 else text[:40] + "..."
            raise InputError(
                f"{self._name} takes more than {_SECONDS:g} s for the {len(text):,} characters "
                f"{shown!r}; write it without repeats of repeats, such as (a+)+"
            ) from None
