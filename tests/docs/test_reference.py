"""The reference has every public name, each says what it is, and each room shows an example."""

import importlib
import inspect
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import reference  # noqa: E402

NAMES = [*reference.packages(), *reference.modules()]
ROOMS = sorted(path.parent.name for path in (ROOT / "dlcore").glob("*/__init__.py"))


def summary(module, name):
    """Returns the line that says what a public name is; "" where there is none."""
    value = getattr(importlib.import_module(module), name)
    if not reference.is_described(value):
        return reference.comment(module, name)
    text = inspect.cleandoc(value.__doc__ or "")
    # What Python makes for a dataclass or a named tuple tells nothing.
    return "" if text.startswith(f"{name}(") else text.split("\n")[0]


@pytest.mark.parametrize("module", NAMES)
def test_each_public_name_says_what_it_is(module):
    public = reference.public_names(module)
    assert public
    assert [name for name in public if not re.match(r"\S.*\w", summary(module, name))] == []


def test_the_reference_has_each_public_name_once_on_the_page_of_its_package():
    pages = reference.pages()
    for module in NAMES:
        shown = re.findall(r"^\.\. auto\w+:: (\S+)$", pages[f"api/{module}.rst"], re.MULTILINE)
        assert shown[0] == module
        assert shown[1:] == [f"{module}.{name}" for name in reference.public_names(module)]
        assert f"   {module}\n" in pages["api/index.rst"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_opens_with_a_paragraph_and_an_example(room):
    text = inspect.getdoc(importlib.import_module(f"dlcore.{room}"))
    before, example, _ = text.partition(">>> ")
    assert example and len(before.split()) > 15


def test_comments_are_found_where_a_constant_is_defined():
    assert reference.comment("dlcore.nn", "LEARNED") == "Activations with parameters."
    assert reference.comment("dlcore.types", "Metrics") == "Means by name."
    assert reference.comment("dlcore.nn", "Dense") == ""
