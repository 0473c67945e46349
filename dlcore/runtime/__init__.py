"""Devices: settings before their first use, meshes and sharding, and layouts of a step.

A layout says where the state and the batches lie. It is passed once, to `compile_step` or `fit`;
the step sums over the devices by `map_rows` and `sum_over_rows`, whichever layout it is.

>>> import jax, jax.numpy as jnp
>>> from dlcore import runtime
>>> mesh = runtime.layout("mesh", mesh=f"data={jax.device_count()}")
>>> add = runtime.compile_step(lambda state, batch: (state + batch["x"].sum(), {}), mesh)
>>> state, _ = add(mesh.place(jnp.zeros(())), {"x": jnp.ones(8)})
>>> float(state)
8.0
"""

from dlcore.runtime.compiled import Compiled, compile_evaluation, compile_step, layout, lower_step
from dlcore.runtime.configure import configure
from dlcore.runtime.layout import Layout, map_rows, on_each_device, sum_over_rows
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
    "on_each_device",
    "parse_rule",
    "precision",
    "sum_over_rows",
]
