"""Data parallel by `jax.pmap`."""

import contextlib
import dataclasses
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dlcore.errors import InputError
from dlcore.parallel import Part, counted_sums, part_of_batch, sum_over_devices
from dlcore.runtime import replicas
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
    name_of,
    together,
    value_and_grad,
)
from dlcore.runtime.sharding import DATA


@dataclasses.dataclass(frozen=True)
class Pmap(Layout):
    """Data parallel by `jax.pmap`: the state unstacked and replicated, the batch split.

    A step sees only the rows of its device. A step that never sums over the devices, or after which
    the devices disagree, is refused.
    """

    axis_name: str = DATA

    @property
    def data_size(self) -> int:  # type: ignore[override]
        return jax.device_count()

    @property
    def part(self) -> tuple[int, int]:  # type: ignore[override]
        return jax.process_index(), jax.process_count()

    @property
    def _mesh(self) -> Mesh:
        return Mesh(jax.devices(), (DATA,))

    def shardings(self, shapes: State) -> Any:
        rest, carry = apart(shapes)
        everywhere = NamedSharding(self._mesh, PartitionSpec())
        rows = NamedSharding(self._mesh, PartitionSpec(DATA))
        return together(all_at(everywhere, rest), all_at(rows, carry))

    def map_rows(self, function: RowsFn) -> Mapped:
        def run(params: Any, shared: Any, rows: Any) -> tuple[Any, Any, Any]:
            with self._part(rows):
                found, shared, rows = function(params, shared, rows, value_and_grad=value_and_grad)
                return sum_over_devices(found), shared, rows

        return run

    def sum_over_rows(self, function: SumsFn) -> SumsFn:
        def run(params: Any, rows: Any, *shared: Any) -> Any:
            with self._part(rows):
                return sum_over_devices(function(params, rows, *shared))

        return run

    def _part(self, rows: Any) -> contextlib.AbstractContextManager[None]:
        count = len(jax.tree.leaves(rows)[0])
        return part_of_batch(Part(jax.lax.axis_index(self.axis_name) * count, 1, self.axis_name))

    def _split(self, batch: Batch) -> Batch:
        count = jax.local_device_count()

        def split(leaf: Any) -> Any:
            if not np.ndim(leaf) or len(leaf) % count:
                check_rows(batch, count)
            return leaf.reshape(count, leaf.shape[0] // count, *leaf.shape[1:])

        return jax.tree.map(split, batch)

    def _local(self, rest: State, carry: Any) -> tuple[State, Any]:
        """Returns the parts of arrays that this process holds, in the form for `pmap`."""
        if jax.process_count() > 1:
            to_local = multihost_utils.global_array_to_host_local_array
            rest = to_local(rest, self._mesh, PartitionSpec())
            carry = to_local(carry, self._mesh, PartitionSpec(DATA))
        return rest, self._split(carry)

    def _global(self, rest: Any, carry: Any) -> tuple[Any, Any]:
        carry = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), carry)
        if jax.process_count() > 1:
            to_global = multihost_utils.host_local_array_to_global_array
            rest = to_global(rest, self._mesh, PartitionSpec())
            carry = to_global(carry, self._mesh, PartitionSpec(DATA))
        return rest, carry

    def compile_step(self, step: StateFn) -> StateFn:
        traced = self.traced(step)

        def unpacked(rest: State, carry: Any, batch: Batch) -> Any:
            with self._part(batch), counted_sums() as sums:
                state, metrics = traced(together(rest, carry), batch)
            if not sums.count and jax.device_count() > 1:
                raise InputError(_refusal(step, "it never sums over the devices"))
            return *apart(state), metrics

        mapped = jax.pmap(
            unpacked,
            self.axis_name,
            in_axes=(None, 0, 0),
            out_axes=(None, 0, None),
            donate_argnums=(0, 1),
        )
        compared = jax.device_count() == 1

        def run(state: State, batch: Batch) -> Any:
            nonlocal compared
            rest, carry, metrics = mapped(*self._local(*apart(state)), self._split(batch))
            rest, carry = self._global(rest, carry)
            if not compared:
                compared = True
                found = {"state": rest, "metrics": self._global(metrics, None)[0]}
                if differing := replicas.differing(found, self._mesh):
                    raise InputError(_refusal(step, f"they disagree about {differing}"))
            return together(rest, carry), metrics

        return run

    def compile_evaluation(self, function: StateFn) -> StateFn:
        traced = self.traced(function)

        def summed(rest: State, carry: Any, batch: Batch) -> Any:
            with self._part(batch):
                metrics, carry = traced(together(rest, carry), batch)
                return sum_over_devices(metrics), carry

        mapped = jax.pmap(summed, self.axis_name, in_axes=(None, 0, 0), out_axes=(None, 0))

        def run(state: State, batch: Batch) -> Any:
            metrics, carry = mapped(*self._local(*apart(state)), self._split(batch))
            return self._global(metrics, carry)

        return run


def _refusal(step: StateFn, why: str) -> str:
    return (
        f"the step {name_of(step)} cannot run under --layout=pmap: each device computes with its "
        f"own rows of the batch, and {why}; choose --layout=jit or --mesh=data=N, or build the "
        "step of mean_gradient, sum_over_rows and sum_over_devices"
    )
