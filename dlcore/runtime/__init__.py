"""Devices: what to settle before their first use, meshes and sharding, layouts of a step."""

from dlcore.runtime.compiled import Compiled as Compiled
from dlcore.runtime.compiled import compile_evaluation as compile_evaluation
from dlcore.runtime.compiled import compile_step as compile_step
from dlcore.runtime.compiled import layout as layout
from dlcore.runtime.compiled import lower_step as lower_step
from dlcore.runtime.configure import configure as configure
from dlcore.runtime.layout import Layout as Layout
from dlcore.runtime.layout import map_rows as map_rows
from dlcore.runtime.layout import sum_over_rows as sum_over_rows
from dlcore.runtime.precision import Precision as Precision
from dlcore.runtime.precision import precision as precision
from dlcore.runtime.sharding import make_mesh as make_mesh
from dlcore.runtime.sharding import parse_rule as parse_rule
