"""Boxes around objects: their forms, areas and overlaps, and the map to a square picture and back.

All functions take NumPy or JAX arrays and return the same kind. A box lies in the last axis of
an array (..., 4) of floats. Its standard form, "corners", is y_min, x_min, y_max, x_max in pixels
from the upper left corner; pixel (i, j) covers [i, i + 1) x [j, j + 1). Shapes: N M boxes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from dlcore import errors
from dlcore.errors import InputError

Array = Any  # of NumPy or JAX

# The order in which each form has the parts of a box; y and x are its centre.
FORMS: dict[str, tuple[str, str, str, str]] = {
    "corners": ("y_min", "x_min", "y_max", "x_max"),
    "corners_xy": ("x_min", "y_min", "x_max", "y_max"),  # Pascal VOC, PyTorch
    "corner_size": ("x_min", "y_min", "width", "height"),  # COCO
    "centre": ("x", "y", "height", "width"),  # b_x, b_y, b_h, b_w of YOLO's tensor
    "centre_size": ("x", "y", "width", "height"),  # YOLO's text files
}


def convert(boxes: Array, given: str, wanted: str) -> Array:
    """Converts boxes (..., 4) from one of `FORMS` to another.

    Raises:
        InputError: for a form that is not one of `FORMS`.

    >>> convert(np.array([10.0, 20.0, 5.0, 8.0]), "corner_size", "corners")
    array([20., 10., 28., 15.])
    """
    part = dict(zip(_form(given), _unstacked(boxes), strict=True))
    for least, most, middle, size in (
        ("y_min", "y_max", "y", "height"),
        ("x_min", "x_max", "x", "width"),
    ):
        if most not in part:
            if least not in part:
                part[least] = part[middle] - part[size] / 2
            part[most] = part[least] + part[size]
        part.setdefault(size, part[most] - part[least])
        part.setdefault(middle, part[least] + part[size] / 2)
    return _stacked([part[name] for name in _form(wanted)])


def relative(boxes: Array, height: float, width: float) -> Array:
    """Converts boxes (..., 4) in form "corners" from pixels to shares of the picture's sides."""
    return boxes / _sides(boxes, height, width)


def absolute(boxes: Array, height: float, width: float) -> Array:
    """Converts boxes (..., 4) in form "corners" from shares of the picture's sides to pixels."""
    return boxes * _sides(boxes, height, width)


def clip(boxes: Array, height: float, width: float) -> Array:
    """Clips boxes (..., 4) in form "corners" at the edges of the picture."""
    y_min, x_min, y_max, x_max = _unstacked(boxes)
    return _stacked(
        [y_min.clip(0, height), x_min.clip(0, width), y_max.clip(0, height), x_max.clip(0, width)]
    )


def area(boxes: Array) -> Array:
    """Returns the areas (...) of boxes (..., 4); 0 where a side is not positive."""
    y_min, x_min, y_max, x_max = _unstacked(boxes)
    return (y_max - y_min).clip(0) * (x_max - x_min).clip(0)


def intersection(a: Array, b: Array) -> Array:
    """Returns the area that boxes a and b (..., 4) share, with shape (...); shapes broadcast."""
    height, width = _common_sides(a, b)
    return height.clip(0) * width.clip(0)


def iou(a: Array, b: Array) -> Array:
    """Returns intersection over union of boxes a and b (..., 4), from 0 to 1, of shape (...).

    It is 0, with a gradient of 0, where both boxes have no area. Shapes broadcast; `pairwise`
    compares each box with each.

    >>> iou(np.array([0.0, 0, 2, 2]), np.array([0.0, 1, 2, 3])).round(4)
    np.float64(0.3333)
    """
    shared = intersection(a, b)
    return _ratio(shared, area(a) + area(b) - shared)


def giou(a: Array, b: Array) -> Array:
    """Returns the generalised IoU, from -1 to 1 (Rezatofighi et al. 2019).

    It is the IoU minus the share of the smallest box around both that neither covers, so that boxes
    that do not touch have a gradient too.
    """
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    height, width = _hull(a, b)
    around = height * width
    return _ratio(shared, union) - _ratio(around - union, around)


def diou(a: Array, b: Array) -> Array:
    """Returns the IoU minus the squared distance of the centres over the squared diagonal.

    The diagonal belongs to the smallest box around both (Zheng et al. 2020).
    """
    return iou(a, b) - _distance(a, b)


def ciou(a: Array, b: Array) -> Array:
    """Returns the complete IoU: `diou` minus a term for the shapes (Zheng et al. 2020).

    This term is alpha v with v = 4 / pi^2 (atan(w/h) - atan(w'/h'))^2 and alpha = v / (1 - IoU +
    v). As in the paper, the gradient treats alpha as a constant.
    """
    overlap = iou(a, b)
    v = (4 / np.pi**2) * (_angle(a) - _angle(b)) ** 2
    alpha = _constant(_ratio(v, 1 - overlap + v))
    return overlap - _distance(a, b) - alpha * v


# The measures of how much two boxes overlap, by name.
OVERLAPS: dict[str, Callable[[Array, Array], Array]] = {
    "iou": iou,
    "giou": giou,
    "diou": diou,
    "ciou": ciou,
}


def pairwise(overlap: Callable[[Array, Array], Array], a: Array, b: Array) -> Array:
    """Returns the overlap of each of a (..., N, 4) with each of b (..., M, 4), (..., N, M)."""
    return overlap(a[..., :, None, :], b[..., None, :, :])


@dataclasses.dataclass(frozen=True)
class Letterbox:
    """The map of a picture into a square without distortion; its longer side fills the square.

    Attributes:
        scale: the factor from pixels of the picture to pixels of the square.
        top: the border above the picture, in pixels of the square.
        left: the border to the left of it.
        height: the height of the picture, in its own pixels.
        width: the width of the picture, in its own pixels.
    """

    scale: float
    top: int
    left: int
    height: int
    width: int

    @classmethod
    def fit(cls, height: int, width: int, side: int) -> "Letterbox":
        """Returns the map of a picture of this size into the middle of a square of this side.

        Raises:
            InputError: for sides below 1.

        >>> Letterbox.fit(50, 100, 200)
        Letterbox(scale=2.0, top=50, left=0, height=50, width=100)
        """
        if min(height, width, side) < 1:
            raise InputError(
                f"a picture of {height} x {width} does not fit into a square of side {side}; all "
                "must be 1 or more"
            )
        scale = side / max(height, width)
        rows, columns = cls(scale, 0, 0, height, width).size
        return cls(scale, (side - rows) // 2, (side - columns) // 2, height, width)

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the picture in the square, in whole pixels, at least 1."""
        return max(1, round(self.height * self.scale)), max(1, round(self.width * self.scale))

    def to_square(self, points: Array) -> Array:
        """Maps points y, x (..., 2), or boxes (..., 4) of two points, into the square."""
        factor, shift = self._map(points)
        return points * factor + shift

    def to_picture(self, points: Array) -> Array:
        """Maps points y, x (..., 2), or boxes (..., 4) of two points, back to the picture."""
        factor, shift = self._map(points)
        return (points - shift) / factor

    def _map(self, points: Array) -> tuple[Array, Array]:
        # Whole pixels make the factors of both axes differ a little.
        (rows, columns), count = self.size, points.shape[-1] // 2
        factor = np.asarray([rows / self.height, columns / self.width] * count, points.dtype)
        shift = np.asarray([self.top, self.left] * count, points.dtype)
        shape = (1,) * (points.ndim - 1) + (2 * count,)
        return factor.reshape(shape), shift.reshape(shape)


def _form(name: str) -> tuple[str, str, str, str]:
    return errors.pick("form of boxes", name, FORMS)


def _unstacked(boxes: Array) -> tuple[Array, Array, Array, Array]:
    return boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]


def _stacked(parts: list[Array]) -> Array:
    return parts[0].__array_namespace__().stack(parts, axis=-1)


def _sides(boxes: Array, height: float, width: float) -> Array:
    sides = np.asarray([height, width, height, width], boxes.dtype)
    return sides.reshape((1,) * (boxes.ndim - 1) + (4,))


def _common_sides(a: Array, b: Array) -> tuple[Array, Array]:
    """Returns height and width of the overlap of two boxes; negative where they do not touch."""
    xp = a.__array_namespace__()
    ay, ax, ay_max, ax_max = _unstacked(a)
    by, bx, by_max, bx_max = _unstacked(b)
    return (
        xp.minimum(ay_max, by_max) - xp.maximum(ay, by),
        xp.minimum(ax_max, bx_max) - xp.maximum(ax, bx),
    )


def _hull(a: Array, b: Array) -> tuple[Array, Array]:
    """Returns height and width of the smallest box around two boxes."""
    xp = a.__array_namespace__()
    ay, ax, ay_max, ax_max = _unstacked(a)
    by, bx, by_max, bx_max = _unstacked(b)
    return (
        xp.maximum(ay_max, by_max) - xp.minimum(ay, by),
        xp.maximum(ax_max, bx_max) - xp.minimum(ax, bx),
    )


def _distance(a: Array, b: Array) -> Array:
    """Returns the squared distance of two centres over the squared diagonal around both boxes."""
    ay, ax, ay_max, ax_max = _unstacked(a)
    by, bx, by_max, bx_max = _unstacked(b)
    down, across = (ay + ay_max - by - by_max) / 2, (ax + ax_max - bx - bx_max) / 2
    height, width = _hull(a, b)
    return _ratio(down**2 + across**2, height**2 + width**2)


def _angle(boxes: Array) -> Array:
    """Returns atan(width / height), finite, as is its gradient, even for boxes without area."""
    xp = boxes.__array_namespace__()
    y_min, x_min, y_max, x_max = _unstacked(boxes)
    height, width = (y_max - y_min).clip(0), (x_max - x_min).clip(0)
    empty = (height <= 0) & (width <= 0)
    return xp.where(empty, 0, xp.arctan2(width, xp.where(empty, 1, height)))


def _ratio(part: Array, whole: Array) -> Array:
    """Returns part / whole; 0, with a gradient of 0, where the whole is not positive."""
    xp = whole.__array_namespace__()
    empty = whole <= 0
    return xp.where(empty, 0, part / xp.where(empty, 1, whole))


def _constant(values: Array) -> Array:
    """Returns the values without their gradient."""
    if isinstance(values, np.ndarray | np.generic):
        return values
    from jax.lax import stop_gradient

    return stop_gradient(values)
