"""The absl flags of a configuration: derived from its fields, read once, at the entry.

The flags live in a `FlagValues` of their own, so that importing a job changes no other flags.
"""

import io
import itertools
import pathlib
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from absl import flags

from dlcore.errors import InputError, choose
from dlcore.files import is_utf8, open_file
from dlcore.launch.config import OWN, Group, specs
from dlcore.launch.fields import Kind, Switch

ConfigT = TypeVar("ConfigT", bound=Group)


class _Parser(flags.ArgumentParser[Any]):
    """A parser of a flag's value; the configuration checks later whether the value is possible."""

    def __init__(self, name: str, kind: Kind):
        self._name, self._kind = name, kind

    def parse(self, argument: Any) -> Any:
        if not isinstance(argument, str):
            return argument
        try:
            return self._kind.parse(argument)
        except ValueError:
            raise ValueError(str(self._kind.error(self._name, argument))) from None

    def flag_type(self) -> str:
        return self._kind.describe()


def define(config: type[Group]) -> flags.FlagValues:
    """Returns the flags of a configuration's fields, by group, with their defaults."""
    values = flags.FlagValues()
    for name, default, spec, title in specs(config):
        parser = _Parser(name, spec.kind)
        flag: flags.Flag[Any]
        if isinstance(spec.kind, Switch):
            flag = flags.BooleanFlag(name, default, spec.help)
        elif spec.kind.several == "repeated":
            flag = flags.MultiFlag(parser, None, name, list(default), spec.help)
        elif spec.kind.several == "listed":
            separator = flags.ListSerializer(",")
            flag = flags.Flag(flags.ListParser(), separator, name, list(default), spec.help)
        else:
            flag = flags.Flag(parser, None, name, default, spec.help)
        flags.DEFINE_flag(flag, values, module_name=title)
    return values


def parse(
    config: type[ConfigT],
    arguments: Sequence[str],
    *,
    recipes: pathlib.Path | None = None,
    base: ConfigT | None = None,
) -> tuple[ConfigT, set[str]]:
    """Returns the configuration that command-line arguments describe, and the names of those given.

    `--flagfile=FILE` stands for the flags in a file, `--recipe=NAME` for those of a named run.

    Args:
        config: the class of the configuration.
        arguments: the arguments without the program's name.
        recipes: the folder of the job's recipes, if it has any.
        base: the configuration that the arguments change, by default that of the defaults.

    Raises:
        InputError: for arguments that are not flags, impossible values, and flags that the
            configuration does not read.
    """
    values = define(config)
    try:
        rest = values(["job", *_expanded(arguments, recipes)])[1:]
    except flags.Error as error:
        raise InputError(f"{' '.join(str(error).split())} (see --help)") from None
    if rest:
        raise InputError(f"arguments {rest} are not flags; see --help")
    given = {flag.name for flag in values._flags().values() if flag.present}
    changes = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.flag_values_dict().items()
        if name in given
    }
    parsed = (config() if base is None else base).changed(**changes)
    parsed.refuse_unread(sorted(given))
    return parsed, given


def value_of(arguments: Sequence[str], name: str) -> str | None:
    """Returns the last value of a flag among the arguments, as text; None where there is none.

    >>> value_of(["--workdir=a", "--steps", "3"], "steps")
    '3'
    """
    value = None
    for argument, following in itertools.pairwise([*arguments, ""]):
        given, equals, text = argument.lstrip("-").partition("=")
        if argument.startswith("-") and given == name:
            value = text if equals else following
    return value


def wants_help(arguments: Sequence[str]) -> bool:
    """Returns whether command-line arguments ask for help."""
    return any(argument in ("--help", "-h", "--helpfull", "-help") for argument in arguments)


def help_text(config: type[Group]) -> str:
    """Returns the flags of a configuration with their defaults, under the titles of their groups.

    The list of the groups comes first, and the job's own flags are the first group.
    """
    groups: dict[str, list[str]] = {OWN: []}
    for name, default, spec, title in specs(config):
        shown = "" if default in (None, (), "") else f" (default {default!r})"
        possible = "" if isinstance(spec.kind, Switch) else f": {spec.kind.describe()}"
        if possible.startswith((": a text", ": a path")):
            possible = ""
        switch = "[no]" if isinstance(spec.kind, Switch) else ""
        groups.setdefault(title, []).append(
            f"  --{switch}{name}\n{_wrapped(f'{spec.help}{possible}{shown}')}"
        )
    groups["Flag files"] = [
        f"  --flagfile\n{_wrapped('take the flags that a file holds, one a line')}",
        f"  --recipe\n{_wrapped('take the flags of a named run; a wrong name lists all')}",
    ]
    groups = {title: lines for title, lines in groups.items() if lines}
    parts = ["\n".join([title, "-" * len(title), *lines]) for title, lines in groups.items()]
    return "\n\n".join([_wrapped(f"Groups: {', '.join(groups)}", ""), *parts])


def _wrapped(text: str, indent: str = " " * 6) -> str:
    return textwrap.fill(
        text, 80, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _expanded(
    arguments: Sequence[str], recipes: pathlib.Path | None, within: tuple[pathlib.Path, ...] = ()
) -> Iterator[str]:
    """Yields the arguments, with each flag file and recipe replaced by the arguments in it.

    absl could do so too, but it opens any file that it is given, in the encoding of the locale.

    Args:
        arguments: the arguments, which may name flag files and recipes.
        recipes: the folder of the recipes.
        within: the files that contain the arguments, the innermost last.
    """
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag.startswith("-") and flag.lstrip("-") in ("flagfile", "recipe"):
            value = value if equals else next(rest, "")
            is_recipe = flag.lstrip("-") == "recipe"
            path = _recipe(value, recipes) if is_recipe else pathlib.Path(value).expanduser()
            if path in within:
                raise InputError(f"the flag file {path} takes its flags from itself; correct it")
            yield from _expanded(_lines(path), recipes, (*within, path))
        else:
            yield argument


def _recipe(name: str, folder: pathlib.Path | None) -> pathlib.Path:
    known = sorted(path.stem for path in folder.glob("*.flags")) if folder is not None else []
    if folder is None or name not in known:
        raise choose("recipe", name, known or ["none"])
    return folder / f"{name}.flags"


def _lines(path: pathlib.Path) -> list[str]:
    """Returns the lines of a flag file that are not comments."""
    try:
        # Values may be paths, which are bytes and need not be UTF-8.
        file = io.TextIOWrapper(open_file(path), encoding="utf-8-sig", errors="surrogateescape")
        with file:
            lines = [*file]
    except OSError as error:
        raise InputError(f"cannot read the flag file {path}: {error.strerror}") from None
    if any(not line.startswith(("#", "--")) and not is_utf8(line) for line in lines):
        raise InputError(
            f"the flag file {path} is not text in UTF-8; give a file of flags, one a line"
        )
    return [line.strip() for line in lines if line.strip() and not line.startswith(("#", "//"))]
