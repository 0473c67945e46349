"""A mesh of devices: data parallel, fully sharded, tensor parallel, and their products."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dlcore.parallel import Part, part_of_batch, sum_over_devices
from dlcore.runtime import gathered, sharding
from dlcore.runtime.layout import (
    Batch,
    Layout,
    Mapped,
    RowsFn,
    State,
    StateFn,
    SumsFn,
    all_at,
    apart,
    check_rows,
    together,
    value_and_grad,
)


@dataclasses.dataclass(frozen=True)
class OnMesh(Layout):
    """A mesh of devices: batches over "data" and "fsdp", the state over "fsdp" and by rules.

    Attributes:
        mesh: a mesh of `sharding.make_mesh`.
        rules: path rules for the leaves of the state; each must match and fit.
        defaults: further rules, which apply where they fit. Leaves that neither they nor "fsdp" cut
            are replicated.
    """

    mesh: Mesh
    rules: sharding.Rules = ()
    defaults: sharding.Rules = ()
    axis_name: tuple[str, ...] = (sharding.DATA, sharding.FSDP)

    @property
    def data_size(self) -> int:  # type: ignore[override]
        return self.mesh.shape[sharding.DATA] * self.mesh.shape[sharding.FSDP]

    @property
    def part(self) -> tuple[int, int]:  # type: ignore[override]
        return sharding.rows_of_process(self.mesh)

    def shardings(self, shapes: State) -> Any:
        rest, carry = apart(shapes)
        sharding.check_rules(rest, self.mesh, self.rules)
        places = sharding.named(self.mesh, self._specs(rest))
        return together(places, all_at(NamedSharding(self.mesh, sharding.ROWS), carry))

    def _specs(self, tree: Any) -> sharding.Specs:
        return sharding.place(tree, self.mesh, (*self.rules, *self.defaults))

    def map_rows(self, function: RowsFn) -> Mapped:
        # What the compiler derives from the places alone reduces each use of a parameter, and each
        # micro-batch. So here the axes of the examples are explicit; "model" stays the compiler's.
        def run(params: Any, shared: Any, rows: Any) -> tuple[Any, Any, Any]:
            specs = self._specs({"params": params})["params"]
            parts = _parts(specs)

            differentiate = value_and_grad
            if any(gathers := self._gathers({"params": params})):
                differentiate = functools.partial(gathered.value_and_grad, gathers=gathers)

            def here(params: Any, shared: Any, rows: Any) -> tuple[Any, Any, Any]:
                with self._part(rows):
                    found, shared, rows = function(
                        params, shared, rows, value_and_grad=differentiate
                    )
                    gradient, sums = found
                    gradient = jax.tree.map(self._sum, gradient, parts)
                    return (gradient, sum_over_devices(sums)), shared, rows

            mapped = self._on_rows(
                here,
                (parts, PartitionSpec(), sharding.ROWS),
                ((parts, PartitionSpec()), PartitionSpec(), sharding.ROWS),
            )
            return mapped(params, shared, rows)

        return run

    def sum_over_rows(self, function: SumsFn) -> SumsFn:
        def run(params: Any, rows: Any, *shared: Any) -> Any:
            specs = self._specs({"params": params})["params"]
            by_parts = gathered.apply(function, self._gathers({"params": params}))

            def here(params: Any, rows: Any, *shared: Any) -> Any:
                with self._part(rows):
                    found = by_parts(params, rows, *shared)
                    return sum_over_devices(found)

            places = _parts(specs), sharding.ROWS, *[PartitionSpec()] * len(shared)
            return self._on_rows(here, places, PartitionSpec())(params, rows, *shared)

        return run

    def on_each_device(self, step: StateFn) -> StateFn:
        if self.data_size == 1:
            return step  # XLA fails on sums over one device within loops (jaxlib 0.10).

        def here(state: State, batch: Batch) -> Any:
            with self._part(batch):
                return step(state, batch)

        return self._on_rows(here, (PartitionSpec(), sharding.ROWS), PartitionSpec())

    def _part(self, rows: Any) -> contextlib.AbstractContextManager[None]:
        count = len(jax.tree.leaves(rows)[0])
        offset = jax.lax.axis_index(self.axis_name) * count
        return part_of_batch(Part(offset, 1, self.axis_name))

    def _gathers(self, tree: Any) -> list[gathered.Gather]:
        """Returns how each leaf is gathered before its use; None for leaves used as they lie."""
        rules = (*self.rules, *self.defaults)

        def of(spec: PartitionSpec, wanted: PartitionSpec) -> gathered.Gather:
            there = sharding.along(sharding.MODEL, spec)
            if sharding.FSDP not in spec and there == wanted:
                return None

            def gather(leaf: jax.Array) -> jax.Array:
                leaf = self._gather(leaf, spec) if sharding.FSDP in spec else leaf
                if there == wanted:
                    return leaf
                # The first constraint is for the gradient, which goes the same way back.
                leaf = jax.lax.with_sharding_constraint(leaf, there)
                return jax.lax.with_sharding_constraint(leaf, wanted)

            return gather

        specs = self._specs(tree), sharding.computed(tree, self.mesh, rules)
        return [of(*each) for each in zip(*map(jax.tree.leaves, specs), strict=True)]

    def _on_rows(self, function: Callable[..., Any], inputs: Any, outputs: Any) -> Any:
        """Runs a function on each device's rows; the compiler spreads it over "model"."""
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=inputs,
            out_specs=outputs,
            axis_names=set(self.axis_name),
            check_vma=False,
        )

    def _gather(self, leaf: jax.Array, spec: PartitionSpec) -> jax.Array:
        """Returns the whole leaf; its gradient is summed over "fsdp" and cut (reduce-scatter)."""
        axis = list(spec).index(sharding.FSDP)
        gather = functools.partial(
            jax.lax.all_gather, axis_name=sharding.FSDP, axis=axis, tiled=True
        )
        if sharding.MODEL in spec:
            # Explicit over "model" too, along which the compiler would gather as well.
            place = sharding.along(sharding.MODEL, spec)
            gather = jax.shard_map(
                gather,
                in_specs=place,
                out_specs=place,
                axis_names={sharding.MODEL},
                check_vma=False,
            )
        return gather(leaf)

    def _sum(self, gradient: jax.Array, spec: PartitionSpec) -> jax.Array:
        """Returns the sum of a gradient over the devices; gathering has summed it over "fsdp"."""
        axes = [axis for axis in self.axis_name if self.mesh.shape[axis] > 1 and axis not in spec]
        return jax.lax.psum(gradient, tuple(axes)) if axes else gradient

    @property
    def _local_size(self) -> int:
        """Returns the number of devices among which this process's rows are divided."""
        return self.data_size // self.part[1]

    def _place(self, batch: Batch, devices: int) -> Batch:
        rows = NamedSharding(self.mesh, sharding.ROWS)

        def place(leaf: Any) -> jax.Array:
            if not np.ndim(leaf) or len(leaf) % devices:
                check_rows(batch, devices)
            return jax.make_array_from_process_local_data(rows, leaf)

        return jax.tree.map(place, batch)

    def compile_step(self, step: StateFn) -> StateFn:
        compiled: StateFn | None = None
        devices = self._local_size

        def run(state: State, batch: Batch) -> Any:
            nonlocal compiled
            if compiled is None:
                compiled = self._jit(step, state)
            return compiled(state, self._place(batch, devices))

        return run

    def _jit(self, step: StateFn, state: State) -> Any:
        # Without these the compiler may choose another place for the new state.
        places = jax.tree.map(lambda leaf: leaf.sharding, state)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        return jax.jit(self.traced(step), donate_argnums=0, out_shardings=(places, everywhere))

    def lower_step(self, step: StateFn, state: State, batch: Batch) -> jax.stages.Lowered:
        """Returns the step traced for arrays that need not be there, to be read instead of run.

        Args:
            step: (state, batch) -> (state, metrics).
            state: the shapes from `abstract`.
            batch: arrays or shapes of a global batch.
        """
        return self._jit(step, state).lower(state, self.abstract_batch(batch))

    def abstract_batch(self, batch: Batch) -> Batch:
        """Returns the shapes, types and shardings of a global batch."""
        rows = NamedSharding(self.mesh, sharding.ROWS)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows), batch
        )

    def compile_evaluation(self, function: StateFn) -> StateFn:
        compiled, devices = self._jit_evaluation(function), self._local_size
        return lambda state, batch: compiled(state, self._place(batch, devices))

    def _jit_evaluation(self, function: StateFn) -> Any:
        # As in a step: of what "fsdp" cuts, the compiler might sum activations or gather tables.
        def evaluated(rest: Any, carry: Any, batch: Batch) -> Any:
            return function(together(rest, carry), batch)

        def run(state: State, batch: Batch) -> Any:
            rest, carry = apart(state)
            specs = self._specs(rest)
            by_parts = gathered.apply(evaluated, self._gathers(rest))

            def here(rest: Any, carry: Any, batch: Batch) -> Any:
                with self._part(batch):
                    metrics, carry = by_parts(rest, carry, batch)
                    return sum_over_devices(metrics), carry

            places = (_parts(specs), sharding.ROWS, sharding.ROWS)
            mapped = self._on_rows(here, places, (PartitionSpec(), sharding.ROWS))
            return mapped(rest, carry, batch)

        places = NamedSharding(self.mesh, PartitionSpec()), NamedSharding(self.mesh, sharding.ROWS)
        return jax.jit(self.traced(run), out_shardings=places)

    def lower_evaluation(self, function: StateFn, state: State, batch: Batch) -> jax.stages.Lowered:
        """Returns an evaluation traced for arrays that need not exist; see `lower_step`."""
        return self._jit_evaluation(function).lower(state, self.abstract_batch(batch))


def _parts(specs: sharding.Specs) -> sharding.Specs:
    """Returns the parts of placements along "fsdp"."""
    return jax.tree.map(functools.partial(sharding.along, sharding.FSDP), specs)
