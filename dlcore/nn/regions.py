"""Features of regions: what a map has in a box, in a fixed number of bins.

Shapes: B pictures, H W C the map, R boxes of each picture, P Q rows and columns of bins. Boxes are
(..., 4) in form "corners" (see `dlcore.boxes`), in pixels of the picture, which are `stride` to a
cell of the map.
"""

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
    """Averages bilinear samples of a map in each bin: RoIAlign (He et al. 2017).

    The samples of a bin form a regular grid, and a bilinear sample is a product of one weight by
    row and one by column. So the mean over a bin is A_y F A_x^T, with the mean weights A_y (P, H)
    and A_x (Q, W) of its rows and columns: two matrix products for each box, the gradient too,
    and no gather or scatter. A sample more than one cell outside of the map is 0; nearer ones have
    the value at its edge. The gradient flows to the boxes as well; `stop_gradient` keeps it away.

    Args:
        features: (B, H, W, C).
        boxes: (B, R, 4).
        stride: pixels of a cell.
        size: P and Q.
        samples: along each side of a bin.
        aligned: whether the middle of the first cell lies half a cell from the edge, as it does;
            else at the edge itself, and boxes have a side of one cell at least, as in the first
            implementations.

    Returns:
        (B, R, P, Q, C).

    Raises:
        InputError: for less than one sample or bin.
    """
    if min(samples, *size) < 1:
        raise InputError(
            f"regions of {size[0]} x {size[1]} bins of {samples} samples; all must be 1 or more"
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
    within_rows = jnp.einsum("brph,bhwc->brpwc", rows, features)
    return jnp.einsum("brqw,brpwc->brpqc", columns, within_rows)


def _bilinear(low: jax.Array, high: jax.Array, bins: int, samples: int, cells: int) -> jax.Array:
    """The mean weight of each cell in each bin along one axis: (B, R, bins, cells)."""
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
    """Takes the maximum of a map in each bin: RoI pooling (Girshick 2015).

    As published, a box is rounded to whole cells, of which it has the first and the last, and each
    bin reaches from the floor of its beginning to the ceiling of its end. Bins outside of the map
    are 0. Equal maxima share the gradient; none flows to the boxes.

    The maxima of all windows of 2^i x 2^j cells are computed once, and each bin is the maximum of
    the four windows in its corners.

    Args:
        features: (B, H, W, C).
        boxes: (B, R, 4).
        stride: pixels of a cell.
        size: P and Q.

    Returns:
        (B, R, P, Q, C).

    Raises:
        InputError: for less than one bin.
    """
    if min(size) < 1:
        raise InputError(f"regions of {size[0]} x {size[1]} bins; both must be 1 or more")
    height, width, channels = features.shape[1:]
    windows = _windows(_windows(features, 1), 3)  # (B, I, H, J, W, C)
    (y, i, some_rows), (x, j, some_columns) = (
        _bins(boxes[..., axis] / stride, boxes[..., 2 + axis] / stride, size[axis], sides)
        for axis, sides in enumerate((height, width))
    )
    levels = windows.shape[3]
    flat = windows.reshape(len(features), -1, channels)
    pooled = jnp.full((), -jnp.inf, features.dtype)
    for row in y:
        for column in x:
            first = ((i * height + row) * levels)[..., :, None] + j[..., None, :]
            place = (first * width + column[..., None, :]).reshape(len(features), -1, 1)
            part = jnp.take_along_axis(flat, place, axis=1)
            pooled = jnp.maximum(pooled, part)
    filled = (some_rows[..., :, None] & some_columns[..., None, :]).reshape(len(features), -1, 1)
    return jnp.where(filled, pooled, 0).reshape(*boxes.shape[:2], *size, channels)


def _windows(x: jax.Array, axis: int) -> jax.Array:
    """Maxima of windows of 1, 2, 4 ... along an axis: a new axis before it counts the powers.

    A window that begins too near to the end for its length is not to be read.
    """
    levels, length = [x], 1
    while 2 * length <= x.shape[axis]:
        last = levels[-1]
        levels.append(jnp.maximum(last, jnp.roll(last, -length, axis)))
        length *= 2
    return jnp.stack(levels, axis)


def _bins(
    low: jax.Array, high: jax.Array, bins: int, cells: int
) -> tuple[tuple[jax.Array, jax.Array], jax.Array, jax.Array]:
    """The two windows that fill each bin along one axis: first cells, power of 2, any at all.

    All of shape (B, R, bins).
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
