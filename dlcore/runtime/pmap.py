"""Data parallel by `jax.pmap`."""

import dataclasses
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dlcore.runtime.layout import (
    Batch,
    Layout,
    RowsFn,
    Spread,
    State,
    StateFn,
    all_at,
    apart,
    together,
    value_and_grad,
)
from dlcore.runtime.sharding import DATA


@dataclasses.dataclass(frozen=True)
class Pmap(Layout):
    """Data parallel by `jax.pmap`: the state unstacked and replicated, the batch split."""

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

    def spread(self, function: RowsFn) -> Spread:
        def run(params: Any, shared: Any, rows: Any) -> tuple[Any, Any, Any]:
            found, shared, rows = function(params, shared, rows, value_and_grad=value_and_grad)
            return jax.lax.psum(found, self.axis_name), shared, rows

        return run

    def _split(self, batch: Batch) -> Batch:
        count = jax.local_device_count()

        def split(leaf: Any) -> Any:
            return leaf.reshape(count, leaf.shape[0] // count, *leaf.shape[1:])

        return jax.tree.map(split, batch)

    def _local(self, rest: State, carry: Any) -> tuple[State, Any]:
        """Of arrays over all processes what this one holds, which is what `pmap` takes."""
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
        def unpacked(rest: State, carry: Any, batch: Batch) -> Any:
            state, metrics = step(together(rest, carry), batch)
            return *apart(state), metrics

        mapped = jax.pmap(
            unpacked,
            self.axis_name,
            in_axes=(None, 0, 0),
            out_axes=(None, 0, None),
            donate_argnums=(0, 1),
        )

        def run(state: State, batch: Batch) -> Any:
            rest, carry, metrics = mapped(*self._local(*apart(state)), self._split(batch))
            return together(*self._global(rest, carry)), metrics

        return run

    def compile_evaluation(self, function: StateFn) -> StateFn:
        def summed(rest: State, carry: Any, batch: Batch) -> Any:
            metrics, carry = function(together(rest, carry), batch)
            return jax.lax.psum(metrics, self.axis_name), carry

        mapped = jax.pmap(summed, self.axis_name, in_axes=(None, 0, 0), out_axes=(None, 0))

        def run(state: State, batch: Batch) -> Any:
            metrics, carry = mapped(*self._local(*apart(state)), self._split(batch))
            return self._global(metrics, carry)

        return run
