"""Reads the cost of a compiled function from the compiler's own account."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from dlcore.plan.walk import operations, operations_of
from dlcore.types import PyTree


@dataclasses.dataclass(frozen=True)
class Cost:
    """The compiler's estimate of one call.

    Attributes:
        flops: floating-point operations (a multiply-add is two) of one device. The compiler counts
            the body of a loop once, however often it runs; the products of the other rounds are
            added here.
        bytes_accessed: all bytes that are read and written; the body of a loop counts once.
        argument_bytes: memory of the arguments.
        output_bytes: memory of the results.
        temporary_bytes: memory of the values between them.
        peak_bytes: the most memory that is held at once.
    """

    flops: float
    bytes_accessed: float
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    peak_bytes: int


def compiled_cost(fn: Callable[..., PyTree], *args: PyTree) -> Cost:
    """Compiles `fn` for some arguments, without running it, and reads its cost.

    Args:
        fn: a function of arrays; jitted unless it already is.
        *args: arrays or ShapeDtypeStructs.
    """
    jitted: Any = fn if hasattr(fn, "lower") else jax.jit(fn)
    compiled = jitted.lower(*args).compile()
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    loops = [op for op in operations(fn, *args) if op.rounds > 1]
    looped = sum(op.multiply_adds / op.devices * (1 - 1 / op.rounds) for op in loops)
    return Cost(
        flops=cost.get("flops", 0.0) + 2 * looped,
        bytes_accessed=cost.get("bytes accessed", 0.0),
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        peak_bytes=peak_bytes(memory),
    )


def model_flops(traced: core.ClosedJaxpr) -> float:
    """Counts the FLOPs of all products, two per multiply-add, on all devices of an explicit mesh.

    Operations that the backward pass repeats (`jax.checkpoint`) count once.

    Args:
        traced: a closed jaxpr.
    """
    return 2.0 * sum(op.multiply_adds for op in operations_of(traced.jaxpr) if not op.again)


def peak_bytes(memory: Any) -> int:
    """Returns the bytes that a compiled function holds at once: arguments, temporaries, results.

    Results that overwrite an argument count once. The CPU compiler's own peak leaves out the
    temporary memory.

    Args:
        memory: the result of `jax.stages.Compiled.memory_analysis`.
    """
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return held + memory.output_size_in_bytes - memory.alias_size_in_bytes
