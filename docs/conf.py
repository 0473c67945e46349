"""The configuration of Sphinx, with the pages that are made from the code itself."""

import inspect
import pathlib
import re
import sys
import types

from docutils import nodes
from docutils.parsers.rst import Directive

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import diagrams  # noqa: E402
import generate  # noqa: E402
import reference  # noqa: E402

from dlcore import __version__  # noqa: E402

project = "dlcore"
author = "the dlcore authors"
copyright = "2026, the dlcore authors"  # noqa: A001
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "mathml",
]
exclude_patterns = ["_build", "jupyter_execute"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"
html_theme = "furo"
html_title = "dlcore"
html_static_path = ["_static"]
html_css_files = ["dlcore.css"]
copybutton_prompt_text = r">>> |\$ "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"


def _of_type(value: object) -> list[str]:
    return (inspect.getdoc(type(value)) or "").splitlines()


def _plain(app, what, name, value, options, lines: list[str]) -> None:
    """Keeps what docstrings say as it stands: they are plain text with code in backticks.

    A constant, or the name of a type, says what the comment on it says, and then its names.
    """
    if what == "data":
        module, _, own = name.rpartition(".")
        lines[:] = [reference.comment(module, own)]
        if isinstance(value, types.GenericAlias):
            lines += ["", f"Stands for `{value}`."]
        elif isinstance(value, dict | tuple) and all(isinstance(one, str) for one in value):
            lines += ["", f"Its names: {', '.join(value)}."]
    elif what == "attribute" and lines[:1] == _of_type(value)[:1]:
        lines[:] = []
    example = False
    for number, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            parts = line.split("`")
            parts[::2] = [re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
            lines[number] = "`".join(parts)


def _left_out(app, what, name, value, skip: bool, options) -> bool | None:
    """Leaves out the fields of named tuples, which the docstring of their class describes."""
    return True if (inspect.getdoc(value) or "").startswith("Alias for field number") else None


class _Diagram(Directive):
    """Puts a diagram of diagrams.py on the page, by its name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        if self.arguments[0] not in diagrams.DIAGRAMS:
            known = ", ".join(diagrams.DIAGRAMS)
            raise self.error(f"there is no diagram {self.arguments[0]!r}; choose of: {known}")
        drawn = diagrams.svg(diagrams.DIAGRAMS[self.arguments[0]])
        return [nodes.raw("", drawn, format="html")]


def setup(app) -> None:
    """Makes the generated pages before Sphinx looks for sources."""
    app.add_directive("diagram", _Diagram)
    app.connect("config-inited", lambda app, config: generate.pages(HERE))
    app.connect("autodoc-skip-member", _left_out)
    app.connect("autodoc-process-docstring", _plain, priority=100)
