"""Layouts of a step on the devices; the same step body serves jit, pmap and a mesh.

A layout says where the state and the batches lie and compiles functions of (state, batch). The
state has the same shapes in every layout, so one checkpoint and one evaluation serve all of them.
"""

import abc
import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, SingleDeviceSharding

from dlcore.errors import InputError
from dlcore.paths import path_of
from dlcore.runtime.precision import current_precision

State = Any
Batch = Any
StateFn = Callable[[State, Batch], Any]
# (params, shared, rows, value_and_grad) -> ((gradient, sums), shared, rows), see `map_rows`.
RowsFn = Callable[..., tuple[Any, Any, Any]]
Mapped = Callable[[Any, Any, Any], tuple[Any, Any, Any]]
# (params, rows, *shared) -> sums, see `sum_over_rows`.
SumsFn = Callable[..., Any]


# Where the parameters are whole.
value_and_grad = functools.partial(jax.value_and_grad, has_aux=True)


class Layout(abc.ABC):
    """A layout of the state and the batches on the devices.

    Attributes:
        axis_name: the named axes over which the examples are spread while a gradient is computed,
            or None where one device sees them all.
        data_size: the number of devices over which the examples of a batch are spread.
        part: which part of each batch this process feeds, and the number of parts.
    """

    axis_name: str | tuple[str, ...] | None = None
    data_size: int = 1
    part: tuple[int, int] = (0, 1)

    @abc.abstractmethod
    def shardings(self, shapes: State) -> Any:
        """Returns the sharding of each leaf of a state, given its shapes."""

    @abc.abstractmethod
    def compile_step(self, step: StateFn) -> StateFn:
        """Compiles (state, batch) -> (state, metrics); the state is donated."""

    def lower_step(self, step: StateFn, state: State, batch: Batch) -> jax.stages.Lowered:
        """Returns the step traced for arrays that need not exist, to be read instead of run.

        Raises:
            InputError: for pmap, which computes the same as a mesh with the axis "data".
        """
        raise InputError("pmap cannot lower a step; plan --layout=mesh, which computes the same")

    @abc.abstractmethod
    def compile_evaluation(self, function: StateFn) -> StateFn:
        """Compiles (state, batch) -> (metrics, carry).

        Metrics are sums over the examples; the carry lies where the state's carry lies.
        """

    def map_rows(self, function: RowsFn) -> Mapped:
        """Implements `dlcore.runtime.map_rows`."""
        return functools.partial(function, value_and_grad=value_and_grad)

    def sum_over_rows(self, function: SumsFn) -> SumsFn:
        """Implements `dlcore.runtime.sum_over_rows`."""
        return function

    def on_each_device(self, step: StateFn) -> StateFn:
        """Implements `dlcore.runtime.on_each_device`."""
        return step

    def traced(self, function: StateFn) -> StateFn:
        """Returns the function wrapped so that it is traced for this layout and can look it up."""

        @functools.wraps(function)
        def run(state: State, batch: Batch) -> Any:
            token = _current.set(self)
            try:
                return function(state, batch)
            finally:
                _current.reset(token)

        return run

    def initialise(self, make_state: Callable[[], State]) -> State:
        """Makes the state in its place, so that no device ever holds more than its part."""
        shardings = self.shardings(jax.eval_shape(make_state))
        options = compiling_quickly()
        return jax.jit(make_state, out_shardings=shardings, compiler_options=options)()

    def place(self, state: State) -> State:
        """Moves the leaves of a state that was made elsewhere to their places.

        This is for a state that fits on one device; `initialise` makes a larger one.
        """

        def moved(leaf: Any, place: Any) -> Any:
            here = isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(place, leaf.ndim)
            return leaf if here else jax.device_put(leaf, place)

        return jax.tree.map(moved, state, self.shardings(jax.eval_shape(lambda: state)))

    def abstract(self, make_state: Callable[[], State]) -> State:
        """Returns the shapes, types and shardings of the state, without making it."""
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
    """The layout of one device."""

    def shardings(self, shapes: State) -> Any:
        device = SingleDeviceSharding(jax.devices()[0])
        return jax.tree.map(lambda _: device, shapes)

    def compile_step(self, step: StateFn) -> StateFn:
        return jax.jit(self.traced(step), donate_argnums=0)

    def lower_step(self, step: StateFn, state: State, batch: Batch) -> jax.stages.Lowered:
        return jax.jit(self.traced(step), donate_argnums=0).lower(state, batch)

    def compile_evaluation(self, function: StateFn) -> StateFn:
        return jax.jit(self.traced(function))


_ONE_DEVICE = Jit()
_current: ContextVar[Layout] = ContextVar("layout", default=_ONE_DEVICE)


def map_rows(function: RowsFn) -> Mapped:
    """Returns a gradient function that runs on each device's rows and sums over the devices once.

    The layout is the one for which the step is being traced, by default one device. While the
    function is traced, `dlcore.parallel` knows which part of the batch it sees.

    Args:
        function: (params, shared, rows, value_and_grad) -> ((gradient, sums), shared, rows). It
            sees the device's part of the parameters and of the rows of a batch and of a carry, and
            all shared values, whose results must be equal on all devices. `value_and_grad(f)` is
            `jax.value_and_grad(f, has_aux=True)` for these parts, where f is a function of whole
            parameters. The gradient has the structure of the parameters.

    Returns:
        (params, shared, rows) -> ((gradient, sums), shared, rows), the sums over all devices.
    """

    @functools.wraps(function)
    def run(params: Any, shared: Any, rows: Any) -> tuple[Any, Any, Any]:
        return _current.get().map_rows(function)(params, shared, rows)

    return run


def sum_over_rows(function: SumsFn) -> SumsFn:
    """Returns a function that sums over all rows of a batch, for statistics other than gradients.

    The layout is the one for which the step is being traced, by default one device.

    Args:
        function: (params, rows, *shared) -> a tree of sums over the rows. It sees the whole
            parameters in the type to compute in, the rows of the batch that are on the device and
            all shared values, such as a key. It should draw the noise of a row by its position in
            the batch, `parallel.positions`.

    Returns:
        (params, batch, *shared) -> the sums over all rows, on all devices, float32 at least.

    For example, contrastive divergence (Hinton 2002) needs the products of units that are on
    together, once for the data and once for the machine's reconstruction:

    >>> import jax.numpy as jnp
    >>> def products(params, rows):
    ...     hidden = jax.nn.sigmoid(rows["visible"] @ params["kernel"])
    ...     return {"products": rows["visible"].T @ hidden, "rows": jnp.float32(len(hidden))}
    >>> batch = {"visible": jnp.ones((4, 3))}
    >>> sums = sum_over_rows(products)({"kernel": jnp.zeros((3, 2))}, batch)
    >>> (sums["products"] / sums["rows"]).tolist()
    [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
    """

    def here(params: Any, rows: Any, *shared: Any) -> Any:
        precision = current_precision()
        return precision.widen(function(precision.cast(params), rows, *shared))

    @functools.wraps(function)
    def run(params: Any, batch: Any, *shared: Any) -> Any:
        return _current.get().sum_over_rows(here)(params, batch, *shared)

    return run


def on_each_device(step: StateFn) -> StateFn:
    """Returns a step that each device runs on its own rows, as under pmap, in every layout.

    The layout is the one for which the step is being traced, by default one device.

    Args:
        step: (state, batch) -> (state, metrics), such as one that updates few rows. It sees the
            whole state, which has no carry, and the rows of the batch that are on the device. Its
            results must be equal on all devices, by `parallel.sum_over_devices` and
            `parallel.gather_over_devices`.

    Returns:
        The step. On a mesh, parameters that "fsdp" cuts are whole on each device while it runs;
        parameters that "model" cuts stay cut.
    """

    @functools.wraps(step)
    def run(state: State, batch: Batch) -> Any:
        return _current.get().on_each_device(step)(state, batch)

    return run


def name_of(step: Callable[..., Any]) -> str:
    """Returns the name of the function inside wrappers made by `functools.wraps`."""
    step = inspect.unwrap(step)
    while isinstance(step, functools.partial):
        step = inspect.unwrap(step.func)
    return str(getattr(step, "__qualname__", type(step).__qualname__))


def compiling_quickly() -> dict[str, int] | None:
    """Returns the options of the compiler for a program that runs once.

    On CPUs the compiler spends most of its time on making code fast: at level 1 of 3 the programs
    that draw parameters compile in a third of the time and compute the same bits. A level in
    XLA_FLAGS takes precedence.
    """
    level = "xla_backend_optimization_level"
    if jax.default_backend() != "cpu" or level in os.environ.get("XLA_FLAGS", ""):
        return None
    return {level: 1}


def check_rows(batch: Batch, devices: int) -> None:
    """Raises InputError when the rows of a leaf do not divide among the devices of the process."""

    def check(key_path: tuple[Any, ...], leaf: Any) -> None:
        shape = np.shape(leaf)
        if not shape:
            raise InputError(
                f"{path_of(key_path)!r} of the batch is a single number, which cannot be divided "
                f"among {devices} devices; give each row its own, or choose --layout=jit or "
                "--mesh=model=N"
            )
        if shape[0] % devices:
            raise InputError(
                f"{path_of(key_path)!r} of the batch has {shape[0]} rows, which do not divide "
                f"among {devices} devices; choose a batch size that is a multiple of {devices}, "
                "or --layout=jit or --mesh=model=N"
            )

    jax.tree_util.tree_map_with_path(check, batch)


def apart(state: State) -> tuple[State, Any]:
    """Returns a state without its carry, and the carry, which lies with the rows of the batch."""
    carry = getattr(state, "carry", None)
    return (state if carry is None else state.replace(carry=None)), carry


def together(state: State, carry: Any) -> State:
    """Returns the state from the two results of `apart`."""
    return state if carry is None else state.replace(carry=carry)


def all_at(place: NamedSharding, tree: Any) -> Any:
    """Returns a tree of the same structure with the same place in every leaf."""
    return jax.tree.map(lambda _: place, tree)
