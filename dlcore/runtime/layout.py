"""Layouts: how one step runs on the devices. The same step body serves jit, pmap and a mesh.

A layout says where the state and the batches lie and compiles functions of (state, batch). The
state has the same shapes in every layout, so one checkpoint and one evaluation serve all of them.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from dlcore import paths
from dlcore.errors import InputError, choose
from dlcore.runtime import sharding

State = Any
Batch = Any
StateFn = Callable[[State, Batch], Any]
Rules = Literal["fsdp"] | paths.Rules[PartitionSpec]


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


class Layout(abc.ABC):
    """Where state and batches lie.

    Attributes:
        axis_name: the named axis that a step must reduce over by itself, or None when the compiler
            does it.
        data_size: over how many devices the examples of a batch are spread.
    """

    axis_name: str | None = None
    data_size: int = 1

    @abc.abstractmethod
    def shardings(self, shapes: State) -> Any:
        """The sharding of each leaf of a state of these shapes."""

    @abc.abstractmethod
    def compile_step(self, step: StateFn) -> StateFn:
        """Compiles (state, batch) -> (state, metrics); the state is donated."""

    @abc.abstractmethod
    def compile_evaluation(self, function: StateFn) -> StateFn:
        """Compiles (state, batch) -> (metrics, carry).

        Metrics are sums over the examples; the carry lies where that of the state lies.
        """

    def initialise(self, make_state: Callable[[], State]) -> State:
        """Makes the state where it belongs: no device ever holds more than its part."""
        shardings = self.shardings(jax.eval_shape(make_state))
        return jax.jit(make_state, out_shardings=shardings)()

    def abstract(self, make_state: Callable[[], State]) -> State:
        """The shapes, types and shardings of the state, without making it."""
        shapes = jax.eval_shape(make_state)
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            self.shardings(shapes),
        )

    def check_batch_size(self, batch_size: int, accumulate: int = 1) -> None:
        """Raises InputError when a batch cannot be spread evenly."""
        parts = self.data_size * accumulate
        if batch_size < 1 or batch_size % parts:
            below = batch_size // parts * parts
            nearest = f"{below} or {below + parts}" if below > 0 else f"{parts}"
            raise InputError(
                f"batch size {batch_size} is not divisible by {parts} = {self.data_size} devices "
                f"x {accumulate} accumulated parts; the nearest that is: {nearest}"
            )


@dataclasses.dataclass(frozen=True)
class Jit(Layout):
    """One device."""

    def shardings(self, shapes: State) -> Any:
        device = SingleDeviceSharding(jax.devices()[0])
        return jax.tree.map(lambda _: device, shapes)

    def compile_step(self, step: StateFn) -> StateFn:
        return jax.jit(step, donate_argnums=0)

    def compile_evaluation(self, function: StateFn) -> StateFn:
        return jax.jit(function)


@dataclasses.dataclass(frozen=True)
class Pmap(Layout):
    """Data parallel by `jax.pmap`: the state unstacked and replicated, the batch split."""

    axis_name: str = sharding.DATA

    @property
    def data_size(self) -> int:  # type: ignore[override]
        return jax.local_device_count()

    def shardings(self, shapes: State) -> Any:
        mesh = Mesh(jax.devices(), (sharding.DATA,))
        rest, carry = _apart(shapes)
        places = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), rest)
        return _together(places, _rows(mesh, carry))

    def _split(self, batch: Batch) -> Batch:
        def split(leaf: Any) -> Any:
            return leaf.reshape(self.data_size, leaf.shape[0] // self.data_size, *leaf.shape[1:])

        return jax.tree.map(split, batch)

    def compile_step(self, step: StateFn) -> StateFn:
        def apart(rest: State, carry: Any, batch: Batch) -> Any:
            state, metrics = step(_together(rest, carry), batch)
            return *_apart(state), metrics

        mapped = jax.pmap(
            apart, self.axis_name, in_axes=(None, 0, 0), out_axes=(None, 0, None),
            donate_argnums=(0, 1),
        )  # fmt: skip

        def run(state: State, batch: Batch) -> Any:
            rest, carry = _apart(state)
            rest, carry, metrics = mapped(rest, self._split(carry), self._split(batch))
            return _together(rest, _merge(carry)), metrics

        return run

    def compile_evaluation(self, function: StateFn) -> StateFn:
        def summed(rest: State, carry: Any, batch: Batch) -> Any:
            metrics, carry = function(_together(rest, carry), batch)
            return jax.lax.psum(metrics, self.axis_name), carry

        mapped = jax.pmap(summed, self.axis_name, in_axes=(None, 0, 0), out_axes=(None, 0))

        def run(state: State, batch: Batch) -> Any:
            rest, carry = _apart(state)
            metrics, carry = mapped(rest, self._split(carry), self._split(batch))
            return metrics, _merge(carry)

        return run


@dataclasses.dataclass(frozen=True)
class OnMesh(Layout):
    """A mesh of devices: batches over the axis "data", the state by rules or fully sharded.

    Attributes:
        mesh: its axes, "data" among them.
        rules: "fsdp", or path rules for the leaves of the state; what no rule matches is
            replicated.
    """

    mesh: Mesh
    rules: Rules = ()

    @property
    def data_size(self) -> int:  # type: ignore[override]
        return self.mesh.shape[sharding.DATA]

    def shardings(self, shapes: State) -> Any:
        rest, carry = _apart(shapes)
        if self.rules == "fsdp":
            specs = sharding.fsdp(rest, self.mesh)
        else:
            specs = sharding.shard_by_rules(rest, self.mesh, self.rules)
        return _together(sharding.named(self.mesh, specs), _rows(self.mesh, carry))

    def _place(self, batch: Batch) -> Batch:
        rows = NamedSharding(self.mesh, PartitionSpec(sharding.DATA))
        return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(rows, leaf), batch)

    def compile_step(self, step: StateFn) -> StateFn:
        compiled: StateFn | None = None

        def run(state: State, batch: Batch) -> Any:
            nonlocal compiled
            if compiled is None:
                # Without these the compiler may choose another place for the new state.
                places = jax.tree.map(lambda leaf: leaf.sharding, state)
                everywhere = NamedSharding(self.mesh, PartitionSpec())
                compiled = jax.jit(step, donate_argnums=0, out_shardings=(places, everywhere))
            return compiled(state, self._place(batch))

        return run

    def compile_evaluation(self, function: StateFn) -> StateFn:
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        rows = NamedSharding(self.mesh, PartitionSpec(sharding.DATA))
        compiled = jax.jit(function, out_shardings=(everywhere, rows))
        return lambda state, batch: compiled(state, self._place(batch))


def _apart(state: State) -> tuple[State, Any]:
    """A state without its carry, and the carry, which lies where the rows of the batch lie."""
    carry = getattr(state, "carry", None)
    return (state if carry is None else state.replace(carry=None)), carry


def _together(state: State, carry: Any) -> State:
    return state if carry is None else state.replace(carry=carry)


def _rows(mesh: Mesh, carry: Any) -> Any:
    """The place of each leaf of a carry: its rows over the axis "data"."""
    rows = NamedSharding(mesh, PartitionSpec(sharding.DATA))
    return jax.tree.map(lambda _: rows, carry)


def _merge(stacked: Any) -> Any:
    """What `pmap` gave of each device's rows, (devices, rows, ...), as (devices * rows, ...)."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), stacked)


def layout(kind: str, *, mesh: str | None = None, rules: Rules = ()) -> Layout:
    """The layout of a name: "jit" (one device), "pmap" (all devices) or "mesh".

    Args:
        kind: "jit", "pmap" or "mesh".
        mesh: for "mesh" its axes, such as "data=2,model=2"; by default all devices on "data".
        rules: for "mesh" the places of the state, see `OnMesh`.

    Raises:
        InputError: for an unknown kind, a mesh that does not fit the devices, or a mesh or rules
            given to a layout that has none.
    """
    if kind not in ("jit", "pmap", "mesh"):
        raise choose("layout", kind, ("jit", "pmap", "mesh"))
    if kind != "mesh" and (mesh or rules):
        raise InputError(f"layout {kind!r} has no mesh and no sharding rules; use layout 'mesh'")
    if kind == "mesh":
        return OnMesh(sharding.make_mesh(mesh or f"{sharding.DATA}={jax.device_count()}"), rules)
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
