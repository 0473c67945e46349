"""Options of models that are given as --option=NAME=VALUE."""

import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

from dlcore.errors import InputError, choose

# What jobs give to models themselves.
_GIVEN = {"num_classes", "remat", "parent", "name"}


def parse_options(model: str, build: Callable[..., Any], given: Sequence[str]) -> dict[str, Any]:
    """Returns the keyword arguments that options describe for a model.

    Args:
        model: the name of the model, for errors.
        build: the function that takes the options by keyword and has their defaults.
        given: the options as NAME=VALUE, with values as in JSON or plain texts.

    Raises:
        InputError: for an option that the model does not have, or a value whose type is not that of
            the default.
    """
    known = inspect.signature(build).parameters
    possible = sorted(set(known) - _GIVEN)
    options: dict[str, Any] = {}
    for item in given:
        name, _, value = item.partition("=")
        if name not in possible:
            raise choose(f"option of {model}", name, possible or ["none"])
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
        default = known[name].default
        if isinstance(default, tuple) and isinstance(options[name], list):
            options[name] = _tuples(options[name])
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        if default is not None and type(options[name]) not in kinds:
            raise InputError(
                f"--option={item}: {name} of {model} takes values such as {json.dumps(default)}, "
                "its default; give such a value"
            )
    return options


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
