"""The coding of boxes for regression, and its inverse.

Boxes are (..., 4) in form "corners" (see `dlcore.boxes`), codes (..., 4) are t_y, t_x, t_h, t_w.
Sizes are decoded as exp(t) times a reference size, and t is cut at log(1000 / 16), so that no
prediction, however wild, makes an infinite box; beyond the cut the gradient is 0.
"""

import math

import jax
import jax.numpy as jnp

from dlcore import boxes as geometry

MOST_LOG_SIZE = math.log(1000 / 16)
SMALLEST = 1e-3  # of a side in pixels, below which its logarithm is that of this

Deviations = tuple[float, float, float, float]
UNIT: Deviations = (1.0, 1.0, 1.0, 1.0)


def encode(boxes: jax.Array, anchors: jax.Array, *, deviations: Deviations = UNIT) -> jax.Array:
    """Codes boxes relative to anchors or proposals (Girshick et al. 2014, appendix C).

    The codes are t_y = (y - y_a) / h_a, t_x = (x - x_a) / w_a, t_h = log(h / h_a) and
    t_w = log(w / w_a), for centres y, x, heights and widths, each divided by its standard
    deviation.

    Args:
        boxes: the boxes (..., 4); shapes broadcast.
        anchors: the anchors (..., 4).
        deviations: the standard deviations of t_y, t_x, t_h, t_w; Faster R-CNN's second stage has
            0.1, 0.1, 0.2, 0.2.

    Returns:
        Codes (..., 4), which are finite even for boxes without area.

    >>> anchor = jnp.array([0.0, 0, 10, 10])
    >>> encode(jnp.array([5.0, 0, 15, 10]), anchor).tolist()
    [0.5, 0.0, 0.0, 0.0]
    """
    y, x, height, width = _centres(boxes)
    y_a, x_a, height_a, width_a = _centres(anchors)
    height, width, height_a, width_a = (
        jnp.maximum(side, SMALLEST) for side in (height, width, height_a, width_a)
    )
    code = (
        (y - y_a) / height_a,
        (x - x_a) / width_a,
        jnp.log(height / height_a),
        jnp.log(width / width_a),
    )
    return jnp.stack([t / deviation for t, deviation in zip(code, deviations, strict=True)], -1)


def decode(codes: jax.Array, anchors: jax.Array, *, deviations: Deviations = UNIT) -> jax.Array:
    """Returns the boxes (..., 4) of codes (..., 4) relative to anchors: the inverse of `encode`."""
    y, x, height, width = _centres(anchors)
    t_y, t_x, t_h, t_w = (codes[..., i] * deviations[i] for i in range(4))
    return _corners(y + t_y * height, x + t_x * width, _grown(height, t_h), _grown(width, t_w))


def encode_cells(boxes: jax.Array, cells: jax.Array, shapes: jax.Array, stride: int) -> jax.Array:
    """Codes boxes as YOLO v2 does: the inverse of `decode_cells`, except at a cell's edge.

    Args:
        boxes: the boxes (..., 4), in pixels.
        cells: int (..., 2), row and column of the cell that contains each centre.
        shapes: (..., 2), height and width of the anchors, in pixels.
        stride: the number of pixels of a cell.

    Returns:
        Codes (..., 4); t_y and t_x, which would be infinite at the edges of the cell, are limited
        to a distance of a 10,000th of the cell from them.
    """
    y, x, height, width = _centres(boxes)
    offsets = jnp.stack([y, x], -1) / stride - cells.astype(boxes.dtype)
    offsets = jnp.clip(offsets, 1e-4, 1 - 1e-4)
    sizes = jnp.maximum(jnp.stack([height, width], -1), SMALLEST)
    return jnp.concatenate([jnp.log(offsets) - jnp.log1p(-offsets), jnp.log(sizes / shapes)], -1)


def decode_cells(codes: jax.Array, cells: jax.Array, shapes: jax.Array, stride: int) -> jax.Array:
    """Returns the boxes (..., 4) of codes (..., 4) in cells of a grid (Redmon & Farhadi 2017).

    The boxes are b_y = (c_y + sigmoid(t_y)) stride, b_x likewise, b_h = p_h exp(t_h),
    b_w = p_w exp(t_w), so that a centre never leaves its cell.

    Args:
        codes: the codes (..., 4); shapes broadcast.
        cells: int (..., 2), row and column.
        shapes: (..., 2), height and width of the anchors, in pixels.
        stride: the number of pixels of a cell.

    >>> zero = jnp.zeros(4)
    >>> decode_cells(zero, jnp.array([0, 1]), jnp.array([4.0, 2.0]), 8).tolist()
    [2.0, 11.0, 6.0, 13.0]
    """
    middle = (cells.astype(codes.dtype) + jax.nn.sigmoid(codes[..., :2])) * stride
    height, width = (_grown(shapes[..., i], codes[..., 2 + i]) for i in range(2))
    return _corners(middle[..., 0], middle[..., 1], height, width)


def _centres(boxes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    parts = geometry.convert(boxes, "corners", "centre")
    return parts[..., 1], parts[..., 0], parts[..., 2], parts[..., 3]


def _corners(y: jax.Array, x: jax.Array, height: jax.Array, width: jax.Array) -> jax.Array:
    return geometry.convert(jnp.stack([x, y, height, width], -1), "centre", "corners")


def _grown(side: jax.Array, t: jax.Array) -> jax.Array:
    return side * jnp.exp(jnp.minimum(t, MOST_LOG_SIZE))
