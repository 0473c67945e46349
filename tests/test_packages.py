"""What a package of dlcore offers: its names, and what `help` shows of them."""

import ast
import importlib
import pathlib
import pkgutil
import pydoc

import pytest

import dlcore

PACKAGES = ["dlcore"] + [
    found.name for found in pkgutil.walk_packages(dlcore.__path__, "dlcore.") if found.ispkg
]


@pytest.mark.parametrize("name", [name for name in PACKAGES if name != "dlcore.models.cnn"])
def test_help_shows_each_name_that_a_package_offers(name):
    package = importlib.import_module(name)
    offered = package.__all__
    assert offered and len({*offered}) == len(offered) and {*offered} <= {*dir(package)}
    shown = pydoc.plain(pydoc.render_doc(package))
    assert [one for one in offered if one not in shown] == []


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_offers_all_that_it_takes_from_its_modules(name):
    package = importlib.import_module(name)
    tree = ast.parse(pathlib.Path(package.__file__).read_text(encoding="utf-8"))
    taken = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{name}.")
        for alias in node.names
    }
    assert taken - {*getattr(package, "__all__", ())} <= {
        "SMALL_DARKNET",
        "SQUEEZENET_NAMES",
        "VGG_NAMES",
    }
