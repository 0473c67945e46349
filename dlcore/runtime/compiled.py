"""Layouts by name, and functions compiled for a layout and a precision."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from dlcore.errors import InputError, choose
from dlcore.runtime import sharding
from dlcore.runtime.layout import Batch, Jit, Layout, State, StateFn
from dlcore.runtime.mesh import OnMesh
from dlcore.runtime.pmap import Pmap
from dlcore.runtime.precision import FLOAT32, Precision, as_before, computing_in


class Compiled:
    """A compiled function of (state, batch), which counts how often it had to be traced.

    Attributes:
        traces: the number of traces: 1 after the first call; each further one is a recompilation,
            caused by a batch with other shapes or types.
    """

    def __init__(self, function: StateFn, compile_: Callable[[StateFn], StateFn]):
        self.traces = 0

        @functools.wraps(function)
        def counted(state: State, batch: Batch) -> Any:
            self.traces += 1
            return function(state, batch)

        self._call = compile_(counted)

    def __call__(self, state: State, batch: Batch) -> Any:
        return self._call(state, batch)


def layout(
    kind: str, *, mesh: str | None = None, rules: sharding.Rules = (), defaults: sharding.Rules = ()
) -> Layout:
    """Returns the named layout: "jit" (one device), "pmap" (all devices) or "mesh".

    Args:
        kind: "jit", "pmap" or "mesh".
        mesh: the axes of "mesh", such as "data=2,fsdp=2,model=2"; by default all devices are
            "data".
        rules: the placement rules of the state for "mesh", see `OnMesh`.
        defaults: see `OnMesh`; other layouts ignore them.

    Raises:
        InputError: for an unknown kind, a mesh that does not fit the devices, a mesh or rules for a
            layout that has none, or the layout of one device in several processes.
    """
    if kind not in ("jit", "pmap", "mesh"):
        raise choose("layout", kind, ("jit", "pmap", "mesh"))
    if kind != "mesh" and (mesh or rules):
        raise InputError(f"layout {kind!r} has no mesh and no sharding rules; use layout 'mesh'")
    if kind == "mesh":
        axes = mesh or f"{sharding.DATA}={jax.device_count()}"
        return OnMesh(sharding.make_mesh(axes), rules, defaults)
    if kind == "jit" and jax.process_count() > 1:
        raise InputError(
            f"layout 'jit' uses one device, but there are {jax.process_count()} processes; use "
            "'mesh' or 'pmap'"
        )
    return Pmap() if kind == "pmap" else Jit()


def compile_step(step: StateFn, layout: Layout, *, precision: Precision | None = None) -> Compiled:
    """Compiles a step (state, batch) -> (state, metrics) for a layout; the state is donated.

    Layout and precision are passed here and nowhere else: while the step is traced, the functions
    that depend on them look them up (`map_rows`, `sum_over_rows`, `mean_gradient`,
    `parallel.sum_over_devices`).

    The batch is a tree of host arrays with the global (in several processes: the local) examples
    along the first axis; the layout puts them in place.

    Args:
        step: the step to compile. Under jit and on a mesh any step is right. Under pmap the step
            sees the rows of one device, and must sum over the devices by one of the functions
            above.
        layout: the layout, which says where state and batches lie.
        precision: the precision of `mean_gradient` and everything based on it; float32 by default.

    Raises:
        InputError: (on calling the compiled step) under pmap for a step that does not sum over the
            devices, and when rows do not divide among the devices.
    """
    return Compiled(_computing(step, precision), layout.compile_step)


def lower_step(
    step: StateFn,
    layout: Layout,
    state: State,
    batch: Batch,
    *,
    precision: Precision | None = None,
) -> jax.stages.Lowered:
    """Returns a step traced as by `compile_step`, but for arrays that need not exist.

    Args:
        step: (state, batch) -> (state, metrics).
        layout: the layout, one device or a mesh.
        state: the shapes from `Layout.abstract`.
        batch: arrays or shapes of a global batch.
        precision: the precision, float32 by default.
    """
    return layout.lower_step(_computing(step, precision), state, batch)


def compile_evaluation(
    function: StateFn, layout: Layout, *, precision: Precision | None = None
) -> Compiled:
    """Compiles (state, batch) -> (metrics, carry) for a layout; metrics summed over all devices.

    Args:
        function: the evaluation; it gets a state whose parameters have the type to compute in. Its
            metrics become float32 at least, and the new carry has the types of the old.
        layout: the layout, which says where state and batches lie.
        precision: the precision, float32 by default.
    """
    precision = precision or FLOAT32

    @functools.wraps(function)
    def cast(state: State, batch: Batch) -> Any:
        seen = state
        if hasattr(state, "params"):
            seen = state.replace(params=precision.cast(state.params))
        metrics, carry = function(seen, batch)
        return precision.widen(metrics), as_before(carry, getattr(state, "carry", None))

    return Compiled(_computing(cast, precision), layout.compile_evaluation)


def _computing(function: StateFn, precision: Precision | None) -> StateFn:
    """Returns the function wrapped so that it is traced in a precision."""

    @functools.wraps(function)
    def run(state: State, batch: Batch) -> Any:
        with computing_in(precision or FLOAT32):
            return function(state, batch)

    return run
