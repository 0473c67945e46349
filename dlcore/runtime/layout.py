"""Layouts: how one step runs on the devices. The same step body serves jit, pmap and a mesh.

A layout says where the state and the batches lie and compiles functions of (state, batch). The
state has the same shapes in every layout, so one checkpoint and one evaluation serve all of them.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, SingleDeviceSharding

from dlcore.errors import InputError

State = Any
Batch = Any
StateFn = Callable[[State, Batch], Any]
# (params, shared, rows, value_and_grad) -> ((gradient, sums), shared, rows), see `Layout.spread`.
RowsFn = Callable[..., tuple[Any, Any, Any]]
Spread = Callable[[Any, Any, Any], tuple[Any, Any, Any]]


# Where the parameters are whole.
value_and_grad = functools.partial(jax.value_and_grad, has_aux=True)


class Layout(abc.ABC):
    """Where state and batches lie.

    Attributes:
        axis_name: the named axes over which the examples are spread while a gradient is computed,
            or None where one device sees them all.
        data_size: over how many devices the examples of a batch are spread.
        part: which part of each batch this process feeds, and of how many parts.
    """

    axis_name: str | tuple[str, ...] | None = None
    data_size: int = 1
    part: tuple[int, int] = (0, 1)

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

    def spread(self, function: RowsFn) -> Spread:
        """Computes a gradient where the examples are, and sums it over the devices once.

        Args:
            function: (params, shared, rows, value_and_grad) -> ((gradient, sums), shared, rows). It
                sees the device's part of the parameters and of the rows of a batch and of a carry,
                and all of what is shared, which must come out equal on all devices.
                `value_and_grad(f)` is `jax.value_and_grad(f, has_aux=True)` for such parts, f being
                a function of whole parameters.

        Returns:
            (params, shared, rows) -> ((gradient, sums), shared, rows), the sums over all devices.
        """
        return functools.partial(function, value_and_grad=value_and_grad)

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


def apart(state: State) -> tuple[State, Any]:
    """A state without its carry, and the carry, which lies where the rows of the batch lie."""
    carry = getattr(state, "carry", None)
    return (state if carry is None else state.replace(carry=None)), carry


def together(state: State, carry: Any) -> State:
    """The state that `apart` took apart."""
    return state if carry is None else state.replace(carry=carry)


def all_at(place: NamedSharding, tree: Any) -> Any:
    """A tree of the same structure whose leaves are all the place."""
    return jax.tree.map(lambda _: place, tree)
