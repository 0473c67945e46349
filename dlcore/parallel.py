"""Which examples of the global batch the code being traced sees.

Under jit a model sees the whole batch. On several devices it sees one device's part, under gradient
accumulation one micro-batch. The layers that look across examples (batch normalisation) or
draw noise per example (dropout) must know, or their results change with the layout. The training
step says so here while it traces the model, as a named axis would; models know nothing of it.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar

import jax
import jax.numpy as jnp

AxisName = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the global batch.

    Attributes:
        offset: the position of the part's first example in the global batch, an int32 scalar.
        stride: how far apart in the global batch two neighbours of the part are.
        axis_name: the named axes over which the devices hold the other parts, or None.
    """

    offset: jax.Array | int = 0
    stride: int = 1
    axis_name: AxisName | None = None


WHOLE = Part()
_current: ContextVar[Part] = ContextVar("part of the batch", default=WHOLE)


@contextlib.contextmanager
def part_of_batch(part: Part) -> Iterator[None]:
    """While open, models are traced for this part of the global batch."""
    token = _current.set(part)
    try:
        yield
    finally:
        _current.reset(token)


def axis_name() -> AxisName | None:
    """The named axes over which the rest of the batch lies, or None."""
    return _current.get().axis_name


def positions(count: int) -> jax.Array:
    """The positions in the global batch of the `count` examples at hand, int32 of (count,)."""
    part = _current.get()
    return part.offset + part.stride * jnp.arange(count, dtype=jnp.int32)
