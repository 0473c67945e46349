"""Devices: what to settle before their first use, meshes and sharding, layouts of a step."""

from dlcore.runtime.compiled import Compiled, compile_evaluation, compile_step, layout, lower_step
from dlcore.runtime.configure import configure
from dlcore.runtime.layout import Layout, map_rows, sum_over_rows
from dlcore.runtime.precision import Precision, precision
from dlcore.runtime.sharding import make_mesh, parse_rule

__all__ = [
    "Compiled",
    "Layout",
    "Precision",
    "compile_evaluation",
    "compile_step",
    "configure",
    "layout",
    "lower_step",
    "make_mesh",
    "map_rows",
    "parse_rule",
    "precision",
    "sum_over_rows",
]
