"""Features of regions: the features of a map inside a box, in a fixed number of bins.

Shapes: B pictures, H W C the map, R boxes of each picture, P Q rows and columns of bins. Boxes are
(..., 4) in form "corners" (see `dlcore.boxes`), in pixels of the picture, which are `stride` to a
cell of the map.
"""

import functools

import jax
import jax.numpy as jnp

from dlcore.errors import InputError


def roi_align(
    features: jax.Array,
    boxes: jax.Array,
    *,
    stride: float,
    size: tuple[int, int] = (7, 7),
    samples: int = 2,
    aligned: bool = True,
) -> jax.Array:
    """Returns the mean of bilinear samples of a map in each bin: RoIAlign (He et al. 2017).

    The samples of a bin form a regular grid, and a bilinear sample is a product of one weight by
    row and one by column. So the mean over a bin is A_y F A_x^T, with the mean weights A_y (P, H)
    and A_x (Q, W) of its rows and columns: two matrix products for each box, the gradient too,
    and no gather or scatter. A sample more than one cell outside of the map is 0; nearer ones have
    the value at its edge. The gradient flows to the boxes as well; `stop_gradient` keeps it away.

    Args:
        features: (B, H, W, C).
        boxes: (B, R, 4).
        stride: the number of pixels of a cell.
        size: P and Q.
        samples: the number of samples along each side of a bin.
        aligned: whether the middle of the first cell lies half a cell from the edge, which is
            correct; else it lies at the edge itself, and boxes have sides of at least one cell, as
            in the first implementations.

    Returns:
        (B, R, P, Q, C).

    Raises:
        InputError: for fewer than one sample or bin.
    """
    if min(samples, *size) < 1:
        raise InputError(
            f"regions of {size[0]} x {size[1]} bins of {samples} samples; all sizes must be "
            "1 or more"
        )
    low, high = boxes[..., :2] / stride, boxes[..., 2:] / stride
    if aligned:
        low, high = low - 0.5, high - 0.5
    else:
        high = jnp.maximum(high, low + 1)
    rows, columns = (
        _bilinear(low[..., axis], high[..., axis], size[axis], samples, features.shape[1 + axis])
        for axis in range(2)
    )
    rows, columns = rows.astype(features.dtype), columns.astype(features.dtype)
    pictures, _, width, channels = features.shape
    # Written as products of matrices: as an einsum, XLA's CPU code of both takes 1.5 times as long.
    within_rows = rows.reshape(pictures, -1, rows.shape[-1]) @ features.reshape(
        pictures, -1, width * channels
    )
    return columns[:, :, None] @ within_rows.reshape(*rows.shape[:3], width, channels)


def _bilinear(low: jax.Array, high: jax.Array, bins: int, samples: int, cells: int) -> jax.Array:
    """Returns the mean weight of each cell in each bin along one axis: (B, R, bins, cells)."""
    count = bins * samples
    share = (jnp.arange(count, dtype=low.dtype) + 0.5) / count
    places = low[..., None] + (high - low)[..., None] * share[None, None]
    inside = (places >= -1) & (places <= cells)
    places = jnp.clip(places, 0, cells - 1)[..., None]
    distance = jnp.abs(places - jnp.arange(cells, dtype=low.dtype)[None, None, None])
    weights = jnp.where(inside[..., None], jnp.maximum(1 - distance, 0), 0)
    return weights.reshape(*low.shape, bins, samples, cells).mean(-2)


def roi_pool(
    features: jax.Array, boxes: jax.Array, *, stride: float, size: tuple[int, int] = (7, 7)
) -> jax.Array:
    """Returns the maximum of a map in each bin: RoI pooling (Girshick 2015).

    As published, a box is rounded to whole cells, including the first and the last, and each bin
    reaches from the floor of its beginning to the ceiling of its end. Bins outside of the map are
    0. The gradient goes to the first of equal maxima, in row-major order; none flows to the boxes.

    The maxima of all windows of 2^i x 2^j cells are computed once, and each bin is the maximum of
    the four windows in its corners. The function has its own gradient rule, because JAX's would go
    back through all windows. It has no forward mode.

    Args:
        features: (B, H, W, C).
        boxes: (B, R, 4).
        stride: the number of pixels of a cell.
        size: P and Q.

    Returns:
        (B, R, P, Q, C).

    Raises:
        InputError: for fewer than one bin.
    """
    if min(size) < 1:
        raise InputError(f"regions of {size[0]} x {size[1]} bins; both must be 1 or more")
    height, width = features.shape[1:3]
    (y, i, some_rows), (x, j, some_columns) = (
        _bins(boxes[..., axis] / stride, boxes[..., 2 + axis] / stride, size[axis], cells)
        for axis, cells in enumerate((height, width))
    )
    # The number of each window in the table of all: (power of rows, row, power of columns, column).
    levels = width.bit_length()
    places = [
        ((((i * height + row) * levels)[..., :, None] + j[..., None, :]) * width)
        + column[..., None, :]
        for row in y
        for column in x
    ]
    filled = some_rows[..., :, None] & some_columns[..., None, :]
    return _largest(features, jnp.stack(places, 1), filled)


@jax.custom_vjp
def _largest(features: jax.Array, places: jax.Array, filled: jax.Array) -> jax.Array:
    """Returns the maxima of bins (B, R, P, Q, C), each over four windows at (B, 4, R, P, Q)."""
    return _maxima((features,), places, filled)[0]


def _largest_forward(
    features: jax.Array, places: jax.Array, filled: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    cells = jnp.arange(features.shape[1] * features.shape[2], dtype=jnp.int32)
    cells = jnp.broadcast_to(cells.reshape(1, *features.shape[1:3], 1), features.shape)
    values, chosen = _maxima((features, cells), places, filled)
    return values, (features, chosen, filled)


def _largest_backward(
    kept: tuple[jax.Array, jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, None, None]:
    features, chosen, filled = kept
    pictures, channels = len(features), features.shape[-1]
    g = jnp.where(filled[..., None], g, 0).reshape(pictures, -1, channels)
    zeros = jnp.zeros((pictures, features.shape[1] * features.shape[2], channels), g.dtype)
    picture, channel = jnp.arange(pictures)[:, None, None], jnp.arange(channels)[None, None]
    dx = zeros.at[picture, chosen.reshape(g.shape), channel].add(g)
    return dx.reshape(features.shape), None, None


_largest.defvjp(_largest_forward, _largest_backward)

# Values, and where they are followed the cells that these come from, int32 of the same shape.
_Values = tuple[jax.Array, ...]


def _maxima(values: _Values, places: jax.Array, filled: jax.Array) -> _Values:
    """Returns the largest value of each bin (B, R, P, Q, C), 0 in empty ones, and its cell."""
    pictures, channels = len(places), values[0].shape[-1]
    table = tuple(x.reshape(pictures, -1, channels) for x in _windows(_windows(values, 1), 3))
    parts = [
        tuple(jnp.take_along_axis(x, places[:, k].reshape(pictures, -1, 1), axis=1) for x in table)
        for k in range(places.shape[1])
    ]
    best = functools.reduce(_larger, parts)
    shape = (*filled.shape, channels)
    return tuple(jnp.where(filled[..., None], x.reshape(shape), 0) for x in best)


def _windows(values: _Values, axis: int) -> _Values:
    """Returns the maxima of windows of 1, 2, 4 ... along an axis, with a new axis for the powers.

    The new axis comes before the old one. A window that begins too near the end for its length must
    not be read.
    """
    levels, length = [values], 1
    while 2 * length <= values[0].shape[axis]:
        shifted = tuple(jnp.roll(x, -length, axis) for x in levels[-1])
        levels.append(_larger(levels[-1], shifted))
        length *= 2
    return tuple(jnp.stack(parts, axis) for parts in zip(*levels, strict=True))


def _larger(a: _Values, b: _Values) -> _Values:
    """Returns the larger of two values, or of equal values the one in the lower cell."""
    if len(a) == 1:
        return (jnp.maximum(a[0], b[0]),)
    second = (b[0] > a[0]) | ((b[0] == a[0]) & (b[1] < a[1]))
    return tuple(jnp.where(second, y, x) for x, y in zip(a, b, strict=True))


def _bins(
    low: jax.Array, high: jax.Array, bins: int, cells: int
) -> tuple[tuple[jax.Array, jax.Array], jax.Array, jax.Array]:
    """Returns the two windows that fill each bin along an axis: first cells, powers, any at all.

    All have the shape (B, R, bins).
    """
    low, high = (
        (jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.5)).astype(jnp.int32)[..., None]
        for x in (low, high)
    )
    length = jnp.maximum(high - low + 1, 1)
    place = jnp.arange(bins, dtype=jnp.int32)[None, None]
    # In whole numbers, since a floor or ceiling must not hang on a rounding.
    first = jnp.clip(low + place * length // bins, 0, cells)
    end = jnp.clip(low - (-(place + 1) * length) // bins, 0, cells)
    some = end > first
    # An empty bin reads any cell.
    first = jnp.minimum(first, cells - 1)
    power = 31 - jax.lax.clz(jnp.maximum(end - first, 1))
    return (first, jnp.maximum(end - (1 << power), first)), power, some
