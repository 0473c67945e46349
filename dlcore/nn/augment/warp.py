"""Affine maps applied to images, boxes and landmarks.

`geometry` defines the maps (B, 3, 3): they take points of the result to points of the input, in
pixels from the upper left corner. Shapes: B batch, H W image, C channels, N boxes, M landmarks.
Landmarks may belong to images, (B, M, 2), or to boxes, (B, N, M, 2).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dlcore.errors import InputError

Fill = float | Sequence[float]


def warp_images(
    images: jax.Array, maps: jax.Array, *, fill: Fill = 0.0, axis_aligned: bool = False
) -> jax.Array:
    """Reads images through maps, interpolating bilinearly between the centres of the pixels.

    Between the outermost centres and the image's edge the outermost pixels are used. A shift by
    whole pixels keeps their bits.

    Args:
        images: floats (B, H, W, C).
        maps: (B, 3, 3).
        fill: the values outside the image, one for all channels or one for each.
        axis_aligned: whether rows stay rows and columns stay columns under all maps. It changes
            the result by rounding errors at most, and takes a CPU half the time.

    Returns:
        Floats (B, H, W, C).
    """
    height, width, channels = images.shape[1:]
    y = jnp.arange(0.5, height)[:, None]
    x = jnp.arange(0.5, width)[None, :]
    outside = fill_values(fill)

    def read(image: jax.Array, to_input: jax.Array) -> jax.Array:
        (yy, yx, down), (xy, xx, right) = to_input[:2]
        source_y, source_x = yy * y + yx * x + down, xy * y + xx * x + right
        inside = _inside(source_y, source_x, height, width)
        top, bottom, low = _neighbours(source_y, height)
        left, right, across = _neighbours(source_x, width)
        pixels = image.reshape(height * width, channels)

        def at(row: jax.Array, column: jax.Array) -> jax.Array:
            return pixels.at[row * width + column].get(mode="promise_in_bounds")

        upper = at(top, left) * (1 - across) + at(top, right) * across
        lower = at(bottom, left) * (1 - across) + at(bottom, right) * across
        return jnp.where(inside[..., None], upper * (1 - low) + lower * low, outside)

    def read_by_axis(image: jax.Array, to_input: jax.Array) -> jax.Array:
        source_y = to_input[0, 0] * y + to_input[0, 2]
        source_x = to_input[1, 1] * x + to_input[1, 2]
        columns = computed_once(_interpolated(image, source_x[0], 1))
        rows = _interpolated(columns, source_y[:, 0], 0)
        inside = _inside(source_y, source_x, height, width)
        return jnp.where(inside[..., None], rows, outside)

    return jax.vmap(read_by_axis if axis_aligned else read)(images, maps)


def computed_once(images: jax.Array) -> jax.Array:
    """Returns the same images, bit for bit, behind a division that XLA computes only once.

    XLA on the CPU fuses operations that it considers cheap, even gathers, into each use and so
    repeats them: "flip,crop:4,mixup" took three times as long. It does not repeat a division.
    """
    return images / jnp.where(images < jnp.inf, 1.0, 2.0)


def warp_boxes(
    boxes: jax.Array,
    mask: jax.Array,
    maps: jax.Array,
    *,
    height: int,
    width: int,
    least_visible: float = 0.25,
) -> tuple[jax.Array, jax.Array]:
    """Replaces each box by the bounding box of its mapped corners, clipped to the image.

    Args:
        boxes: floats (B, N, 4), each y_min, x_min, y_max, x_max in pixels.
        mask: (B, N), true for real boxes, false for padding.
        maps: (B, 3, 3).
        height: H.
        width: W.
        least_visible: a box becomes padding when a smaller share of its area than this, or nothing
            of it, lies inside the image.

    Returns:
        The boxes, where padding is 0, and the mask in the given type.
    """
    batch, count = mask.shape
    corners_y = boxes[..., jnp.array([0, 0, 2, 2])].reshape(batch, -1)
    corners_x = boxes[..., jnp.array([1, 3, 1, 3])].reshape(batch, -1)
    y, x = (a.reshape(batch, count, 4) for a in _to_result(maps, corners_y, corners_x))
    whole = jnp.stack([y.min(-1), x.min(-1), y.max(-1), x.max(-1)], -1)
    most = jnp.array([height, width, height, width], whole.dtype).reshape(1, 1, 4)
    return cut_boxes(whole, mask, jnp.zeros_like(most), most, least_visible)


def cut_boxes(
    whole: jax.Array, mask: jax.Array, low: jax.Array, high: jax.Array, least_visible: float
) -> tuple[jax.Array, jax.Array]:
    """Clips boxes at the edges of a rectangle.

    Args:
        whole: floats (B, N, 4).
        mask: (B, N), true for real boxes.
        low: y, x, y, x of the rectangle's upper left corner, of a shape that broadcasts.
        high: the same for its lower right corner.
        least_visible: as in `warp_boxes`.

    Returns:
        The boxes, where padding is 0, and the mask in the given type.
    """
    clipped = jnp.clip(whole, low, high)
    visible = _area(clipped)
    kept = mask.astype(bool) & (visible > 0) & (visible >= least_visible * _area(whole))
    return jnp.where(kept[..., None], clipped, 0), kept.astype(mask.dtype)


def warp_landmarks(
    points: jax.Array,
    mask: jax.Array,
    maps: jax.Array,
    *,
    height: int,
    width: int,
    pairs: Sequence[tuple[int, int]] = (),
) -> tuple[jax.Array, jax.Array]:
    """Moves landmarks with the pixels.

    Args:
        points: floats (B, M, 2) or (B, N, M, 2), each y, x in pixels.
        mask: (B, M) or (B, N, M), true for visible landmarks.
        maps: (B, 3, 3).
        height: H.
        width: W.
        pairs: indices of landmarks that are each other's mirror images, such as (left eye, right
            eye): where a map mirrors the image, they are exchanged.

    Returns:
        The points, and the mask in the given type, false also for points outside the image.

    Raises:
        InputError: when a pair names an unknown landmark, or two pairs name the same one.
    """
    count = points.shape[-2]
    indices = [index for pair in pairs for index in pair]
    if len(set(indices)) < len(indices) or not all(0 <= index < count for index in indices):
        raise InputError(
            f"landmark pairs {tuple(pairs)} do not fit {count} landmarks; "
            f"name each of 0..{count - 1} at most once"
        )
    mirrored_order = list(range(count))
    for left, right in pairs:
        mirrored_order[left], mirrored_order[right] = right, left
    mirrored = (_determinant(maps) < 0).reshape(-1, *(1,) * (mask.ndim - 1))
    order = jnp.array(mirrored_order, jnp.int32)
    points = jnp.where(mirrored[..., None], points[..., order, :], points)
    mask = jnp.where(mirrored, mask[..., order], mask)
    flat = points.reshape(len(points), -1, 2)
    y, x = (part.reshape(mask.shape) for part in _to_result(maps, flat[..., 0], flat[..., 1]))
    visible = mask.astype(bool) & _inside(y, x, height, width)
    return jnp.stack([y, x], -1), visible.astype(mask.dtype)


def fill_values(fill: Fill) -> jax.Array:
    """Returns `fill` as a float32 array (1, 1, C or 1), which broadcasts to images."""
    return jnp.asarray(fill, jnp.float32).reshape(1, 1, -1)


def _neighbours(source: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the two pixels whose centres enclose a point, and the share of the second."""
    centre = jnp.clip(source - 0.5, 0, size - 1)
    first = jnp.floor(centre)
    index = first.astype(jnp.int32)
    return index, jnp.minimum(index + 1, size - 1), (centre - first)[..., None]


def _interpolated(image: jax.Array, source: jax.Array, axis: int) -> jax.Array:
    """Returns an image (H, W, C) with its rows or columns taken at the points `source`."""
    first, second, share = _neighbours(source, image.shape[axis])
    share = jnp.expand_dims(share[..., 0], tuple({0, 1, 2} - {axis}))

    def at(index: jax.Array) -> jax.Array:
        return jnp.take(image, index, axis, mode="clip")

    return at(first) * (1 - share) + at(second) * share


def _inside(y: jax.Array, x: jax.Array, height: int, width: int) -> jax.Array:
    return (y >= 0) & (y <= height) & (x >= 0) & (x <= width)


def _area(boxes: jax.Array) -> jax.Array:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _determinant(maps: jax.Array) -> jax.Array:
    return maps[:, 0, 0] * maps[:, 1, 1] - maps[:, 0, 1] * maps[:, 1, 0]


def _to_result(maps: jax.Array, y: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Applies the inverse map to points of the input, y and x (B, n) each."""
    (yy, yx, down), (xy, xx, right) = jnp.moveaxis(maps[:, :2, :, None], 0, 2)
    y, x = y - down, x - right
    determinant = _determinant(maps)[:, None]
    return (xx * y - yx * x) / determinant, (yy * x - xy * y) / determinant
