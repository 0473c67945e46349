"""Diagrams of the glossary, which are kept as a table of boxes and arrows."""

import functools
import pathlib
import tomllib
from typing import Any

from matplotlib.figure import Figure

from pictures.drawing import add, axes, diagram

_TABLE = pathlib.Path(__file__).resolve().with_suffix(".toml")


def _draw(given: dict[str, Any]) -> Figure:
    figure, (ax,) = axes(height=given["height"], bare=True)
    boxes = {text: (x, y, kind) for text, x, y, kind in given["boxes"]}
    diagram(ax, boxes, given["arrows"], width=given.get("width", 0.95))
    return figure


for _name, _given in tomllib.loads(_TABLE.read_text(encoding="utf-8")).items():
    add(_name, _given["terms"], _given["alt"], functools.partial(_draw, _given))
