"""The layout of a name, and functions compiled for it."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from dlcore.errors import InputError, choose
from dlcore.runtime import sharding
from dlcore.runtime.layout import Batch, Jit, Layout, State, StateFn
from dlcore.runtime.mesh import OnMesh
from dlcore.runtime.pmap import Pmap


class Compiled:
    """A compiled function of (state, batch), which counts how often it had to be traced.

    Attributes:
        traces: 1 after the first call; each further one is a recompilation, caused by a batch of
            other shapes or types.
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
    """The layout of a name: "jit" (one device), "pmap" (all devices) or "mesh".

    Args:
        kind: "jit", "pmap" or "mesh".
        mesh: for "mesh" its axes, such as "data=2,fsdp=2,model=2"; by default all are "data".
        rules: for "mesh" the places of the state, see `OnMesh`.
        defaults: see `OnMesh`; other layouts do without.

    Raises:
        InputError: for an unknown kind, a mesh that does not fit the devices, a mesh or rules given
            to a layout that has none, or one device in several processes.
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
            f"layout 'jit' is one device, but there are {jax.process_count()} processes; use "
            "'mesh' or 'pmap'"
        )
    return Pmap() if kind == "pmap" else Jit()


def compile_step(step: StateFn, layout: Layout) -> Compiled:
    """Compiles a step (state, batch) -> (state, metrics) for a layout; the state is donated.

    The batch is a tree of host arrays with the global (in several processes: the local) examples
    along the first axis; the layout puts them in place.
    """
    return Compiled(step, layout.compile_step)


def compile_evaluation(function: StateFn, layout: Layout) -> Compiled:
    """Compiles (state, batch) -> (metrics, carry) for a layout; metrics summed over all devices."""
    return Compiled(function, layout.compile_evaluation)
