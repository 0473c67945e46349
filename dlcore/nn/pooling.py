"""Max and average pooling over sliding windows, and squares of pixels moved into channels.

Shapes: B batch, C channels, I input and O output sizes (`windows.output_size`), F window, S stride;
each spatial dimension has its own I, O, F and S; images (B, H, W, C) have two.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator
from contextvars import ContextVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dlcore.nn.windows import Padding, PerDimension, output_size, pad_sizes, per_dimension

Sizes = tuple[int, ...]
_averaging: ContextVar[bool] = ContextVar("averaging", default=False)
Pads = tuple[tuple[int, int], ...]


@contextlib.contextmanager
def average_for_max() -> Iterator[None]:
    """Makes `max_pool` average in a model that is applied or traced while open.

    Style transfer does this in a network that was trained with maxima, because then all values of a
    window share the gradient (Gatys et al. 2015, section 2). Padding does not count.
    """
    token = _averaging.set(True)
    try:
        yield
    finally:
        _averaging.reset(token)


def max_pool(
    x: jax.Array,
    window: PerDimension,
    *,
    stride: PerDimension | None = None,
    padding: Padding = "valid",
) -> jax.Array:
    """Returns the largest value of each window; maps (B, I..., C) to (B, O..., C).

    Padding counts as minus infinity. Where several values of a window are the largest, the first
    in row-major order gets the whole gradient. The function has its own gradient rule (reverse mode
    only), because the one that JAX derives takes most of the step of a small network on a CPU.

    Args:
        x: floating-point input.
        window: F; one number stands for all dimensions.
        stride: S, the window when None. Smaller strides make the windows overlap.
        padding: "valid", "same", "full" (see `windows.pad_sizes`) or ((start, end), ...).

    Raises:
        InputError: when the input is too small for the window.
        ValueError: when a window could lie in the padding alone.

    >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    >>> max_pool(x, 2)[0, ..., 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    if _averaging.get():
        return average_pool(x, window, stride=stride, padding=padding, count_include_padding=False)
    return _max_pool(x, *_resolve(x, window, stride, padding))


def average_pool(
    x: jax.Array,
    window: PerDimension,
    *,
    stride: PerDimension | None = None,
    padding: Padding = "valid",
    count_include_padding: bool = True,
) -> jax.Array:
    """Returns the mean of each window; maps (B, I..., C) to (B, O..., C).

    Args:
        x: floating-point input.
        window: F; one number stands for all dimensions.
        stride: S, the window when None.
        padding: "valid", "same", "full" (see `windows.pad_sizes`) or ((start, end), ...).
        count_include_padding: whether the zeros of the padding count in the mean.

    Raises:
        InputError: when the input is too small for the window.
        ValueError: when a window could lie in the padding alone.

    >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    >>> average_pool(x, 2)[0, ..., 0].tolist()
    [[2.5, 4.5], [10.5, 12.5]]
    """
    window, stride, pads = _resolve(x, window, stride, padding)
    total = lax.reduce_window(x, 0.0, lax.add, *_with_batch_and_channels(window, stride, pads))
    if count_include_padding:
        return total / math.prod(window)
    ones = np.ones((1, *x.shape[1:-1], 1), x.dtype)
    count = lax.reduce_window(ones, 0.0, lax.add, *_with_batch_and_channels(window, stride, pads))
    return total / count


def space_to_depth(x: jax.Array, side: int) -> jax.Array:
    """Puts the pixels of each square into the channels; maps (B, H, W, C) to (B, h, w, F^2 C).

    h and w are H / F and W / F rounded up; pixels beyond the image are 0. The pixels of a square
    are in row-major order (the passthrough reorganisation of Redmon & Farhadi 2017, section 2).

    Args:
        x: the images.
        side: F, the side of a square.

    >>> space_to_depth(jnp.arange(8.0).reshape(1, 2, 4, 1), 2).tolist()
    [[[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]]
    """
    rows, columns = (-(-size // side) for size in x.shape[1:3])
    more = [(0, n * side - size) for n, size in zip((rows, columns), x.shape[1:3], strict=True)]
    x = jnp.pad(x, ((0, 0), *more, (0, 0)))
    squares = x.reshape(len(x), rows, side, columns, side, x.shape[-1])
    return squares.transpose(0, 1, 3, 2, 4, 5).reshape(len(x), rows, columns, -1)


def _resolve(
    x: jax.Array, window: PerDimension, stride: PerDimension | None, padding: Padding
) -> tuple[Sizes, Sizes, Pads]:
    """Checks window, stride and padding and returns them for each spatial dimension of x."""
    sizes = x.shape[1:-1]
    window = per_dimension(window, len(sizes), "window")
    stride = window if stride is None else per_dimension(stride, len(sizes), "stride")
    pads = pad_sizes(sizes, window, stride=stride, padding=padding, dilation=(1,) * len(sizes))
    for i, f, s, p in zip(sizes, window, stride, pads, strict=True):
        output_size(i, f, stride=s, padding=p)
        if max(p) >= f:
            raise ValueError(f"padding {p} must be smaller than the window of {f}")
    return window, stride, pads


def _with_batch_and_channels(window: Sizes, stride: Sizes, pads: Pads) -> tuple[Sizes, Sizes, Pads]:
    return (1, *window, 1), (1, *stride, 1), ((0, 0), *pads, (0, 0))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: jax.Array, window: Sizes, stride: Sizes, pads: Pads) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, *_with_batch_and_channels(window, stride, pads))


def _max_pool_forward(
    x: jax.Array, window: Sizes, stride: Sizes, pads: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = _max_pool(x, window, stride, pads)
    return y, (x, y)


def _max_pool_backward(
    window: Sizes, stride: Sizes, pads: Pads, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array]:
    """Computes the gradient by elementwise operations only, without scatter or search.

    It cuts the padded input into blocks of S values per dimension. Window o reaches into the
    ceil(F / S) blocks from block o on. For each of these, comparing the position of the maximum
    with the positions in the block gives the gradient, and the results add up after a shift by
    whole blocks.
    """
    x, y = saved
    n, out = len(window), y.shape[1:-1]
    winner = _argmax_in_window(x, y, window, stride, pads)
    # From here on each dimension has two axes: the block and the position in the block.
    apart = (y.shape[0], *itertools.chain(*((o, 1) for o in out)), y.shape[-1])
    winner, g = winner.reshape(apart), g.reshape(apart)
    reach = [-(-f // s) for f, s in zip(window, stride, strict=True)]
    total = jnp.zeros((), g.dtype)
    for blocks in itertools.product(*map(range, reach)):
        shifts = [(b, r - 1 - b, 0) for b, r in zip(blocks, reach, strict=True)]
        shifts_apart = itertools.chain(*((shift, (0, 0, 0)) for shift in shifts))
        part = jnp.where(
            winner == _block_positions(blocks, window, stride), g, jnp.zeros((), g.dtype)
        )
        part = lax.pad(part, jnp.zeros((), g.dtype), [(0, 0, 0), *shifts_apart, (0, 0, 0)])
        total = total + part
    covered = [(o + r - 1) * s for o, r, s in zip(out, reach, stride, strict=True)]
    total = total.reshape(x.shape[0], *covered, x.shape[-1])
    # The blocks do not end where the input does: this cuts off values outside of it and adds
    # zeros where no window reached.
    fit = [
        (-start, size + start - c, 0)
        for size, c, (start, _) in zip(x.shape[1 : n + 1], covered, pads, strict=True)
    ]
    return (lax.pad(total, jnp.zeros((), g.dtype), [(0, 0, 0), *fit, (0, 0, 0)]),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _argmax_in_window(
    x: jax.Array, y: jax.Array, window: Sizes, stride: Sizes, pads: Pads
) -> jax.Array:
    """Returns each maximum's position in its window, counted in row-major order: (B, O..., C)."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    winner = jnp.zeros(y.shape, jnp.int32)
    places = list(itertools.product(*map(range, window)))
    for number, place in reversed(list(enumerate(places))):
        cut = (
            slice(p, p + s * (o - 1) + 1, s)
            for p, s, o in zip(place, stride, y.shape[1:-1], strict=True)
        )
        winner = jnp.where(x[(slice(None), *cut)] == y, number, winner)
    return winner


def _block_positions(blocks: Sizes, window: Sizes, stride: Sizes) -> np.ndarray:
    """Returns the window positions that one block covers, -1 where the window does not reach.

    The shape is (1, 1, S, 1, S, ..., 1), to compare them with the maxima of all windows.
    """
    axes = [b * s + np.arange(s) for b, s in zip(blocks, stride, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij")
    inside = np.all([a < f for a, f in zip(grid, window, strict=True)], axis=0)
    numbers = np.ravel_multi_index(grid, window, mode="clip")
    shape = (1, *itertools.chain(*((1, s) for s in stride)), 1)
    return np.where(inside, numbers, -1).astype(np.int32).reshape(shape)
