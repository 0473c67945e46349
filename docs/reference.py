"""Makes the reference from the code: a page for each package with public names, and for the modules
at the top of dlcore."""

import ast
import functools
import importlib
import inspect
import pathlib
import types
from typing import Any, TypeVar

ROOT = pathlib.Path(__file__).resolve().parent.parent


def packages() -> list[str]:
    """Returns the dotted names of the packages of dlcore that have public names."""
    found = []
    for path in sorted((ROOT / "dlcore").rglob("__init__.py")):
        name = ".".join(path.parent.relative_to(ROOT).parts)
        if hasattr(importlib.import_module(name), "__all__"):
            found.append(name)
    return found


def modules() -> list[str]:
    """Returns the dotted names of the modules at the top of dlcore, which every room may import."""
    return [f"dlcore.{path.stem}" for path in sorted((ROOT / "dlcore").glob("[!_]*.py"))]


def public_names(name: str) -> list[str]:
    """Returns the public names of a package, or those that a module defines."""
    module = importlib.import_module(name)
    if hasattr(module, "__all__"):
        return list(module.__all__)
    values = vars(module)
    return [
        own
        for own in definitions(name)
        if not own.startswith("_") and not isinstance(values[own], TypeVar)
    ]


@functools.cache
def definitions(module: str) -> dict[str, str]:
    """Returns the names that a module defines, and the comment above each that is assigned."""
    text = inspect.getsource(importlib.import_module(module))
    lines, found = text.splitlines(), {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = ""
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [
            name.id
            for target in targets
            for name in (target.elts if isinstance(target, ast.Tuple) else [target])
            if isinstance(name, ast.Name)
        ]
        above = []
        for line in lines[node.lineno - 2 :: -1] if names else []:
            if not line.startswith("# "):
                break
            above.insert(0, line[2:])
        beside = lines[node.end_lineno - 1].partition("  # ")[2]
        found |= dict.fromkeys(names, " ".join(above or [beside]).strip())
    return found


def comment(module: str, name: str) -> str:
    """Returns the comment on a constant or a type, where it is defined; "" without one."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return comment(node.module, alias.name)
    return definitions(module).get(name, "")


def is_described(value: object) -> bool:
    """Returns whether a value has a docstring of its own: a function, a class or a module."""
    if inspect.ismodule(value):
        return True
    alias = value is Any or isinstance(value, types.GenericAlias)
    return callable(value) and hasattr(value, "__name__") and not alias


def pages() -> dict[str, str]:
    """Returns the pages of the reference by their files."""
    names = [*packages(), *modules()]
    seen: set[int] = set()
    found = {f"api/{name}.rst": _page(name, seen) for name in names}
    index = ["Reference", "=========", "", _INTRODUCTION, "", ".. toctree::",
             "   :maxdepth: 1", "", *(f"   {name}" for name in names), ""]  # fmt: skip
    return found | {"api/index.rst": "\n".join(index)}


_INTRODUCTION = """All public names, by room. What a room's package does not name is not for use
from outside and may change at any time. The modules at the end may be imported by every room."""


def _page(name: str, seen: set[int]) -> str:
    module = importlib.import_module(name)
    lines = [name, "=" * len(name), "", f".. automodule:: {name}", "   :no-members:", ""]
    for public in public_names(name):
        value = getattr(module, public)
        kind = (
            "autodata" if not is_described(value)
            else "automodule" if inspect.ismodule(value)
            else "autoclass" if inspect.isclass(value)
            else "autofunction"
        )  # fmt: skip
        lines += [f".. {kind}:: {name}.{public}"]
        lines += {"autodata": ["   :no-value:"], "autofunction": []}.get(kind, ["   :members:"])
        # What two rooms offer is found under the first of its names.
        lines += ["   :no-index:"] if id(value) in seen else []
        seen.add(id(value))
        lines += [""]
    return "\n".join(lines)
