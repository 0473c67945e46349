"""Random affine maps, one per example, drawn from its key.

A map is a matrix (3, 3), float32, that takes a point (y, x, 1) of the result to the point of the
input that appears there. Points are in pixels from the image's upper left corner, so that pixel
(i, j) covers [i, i + 1) x [j, j + 1) and its centre is (i + 0.5, j + 0.5). The matrix product
first @ second does the first augmentation, then the second, and costs only one interpolation.
`warp` applies maps to images, boxes and landmarks.

Every function takes the example's own key and the image's height H and width W in pixels;
`object_crop` also takes the boxes of the objects as the maps before it leave them.
"""

import jax
import jax.numpy as jnp

from dlcore.boxes import area, intersection
from dlcore.errors import InputError

Number = jax.Array | float


def flip(key: jax.Array, height: int, width: int, *, probability: float = 0.5) -> jax.Array:
    """Exchanges left and right.

    Args:
        key: the example's key.
        height: H.
        width: W.
        probability: the probability of a flip.
    """
    sign = jnp.where(jax.random.bernoulli(key, probability), -1.0, 1.0)
    return about_centre(height, width, xx=sign)


def crop(key: jax.Array, height: int, width: int, *, padding: int = 4) -> jax.Array:
    """Pads all sides and cuts out an image of the old size, at whole pixels.

    He et al. 2016 (section 4.2) do so with 4 pixels for images of 32x32.

    Args:
        key: the example's key.
        height: H.
        width: W.
        padding: width of the padding in pixels.

    Raises:
        InputError: when nothing but padding could remain.
    """
    if padding >= min(height, width):
        raise InputError(
            f"crop with a padding of {padding} can leave nothing of images of {height}x{width}; "
            f"choose at most {min(height, width) - 1}"
        )
    down, right = jax.random.randint(key, (2,), -padding, padding + 1).astype(jnp.float32)
    return _matrix(1.0, 0.0, down, 0.0, 1.0, right)


def resized_crop(
    key: jax.Array, height: int, width: int, *, smallest: float = 0.08, aspect: float = 4 / 3
) -> jax.Array:
    """Cuts out a rectangle anywhere and resizes it to the image's size (Szegedy et al. 2014, 6).

    Its share of the area and the logarithm of its aspect ratio are uniform. A rectangle that does
    not fit into the image is drawn again, at most nine times; then it is cut to the image's sides.

    Args:
        key: the example's key.
        height: H.
        width: W.
        smallest: least share of the area.
        aspect: largest ratio of width to height, or of height to width.
    """
    size_key, place_key = jax.random.split(key)
    tall, wide = _rectangles(size_key, height, width, smallest, aspect, tries=10)
    first = jnp.argmax((tall <= height) & (wide <= width))
    tall, wide = jnp.minimum(tall[first], height), jnp.minimum(wide[first], width)
    down, right = jax.random.uniform(place_key, (2,))
    return _matrix(
        tall / height, 0.0, down * (height - tall), 0.0, wide / width, right * (width - wide)
    )


def object_crop(
    key: jax.Array,
    height: int,
    width: int,
    boxes: jax.Array,
    mask: jax.Array,
    *,
    smallest: float = 0.3,
    aspect: float = 1.5,
    visible: float = 0.5,
) -> jax.Array:
    """Cuts out a rectangle that keeps a share of an object, and resizes it to the image's size.

    It resembles the patches of Liu et al. 2016 (SSD, section 2.2), but first draws an object, all
    with equal probability. It then draws rectangles as `resized_crop` does, until one fits into the
    image and contains the share of the object's area; after 50 the image stays whole. In an image
    without an object it takes the first rectangle that fits. `warp_boxes` has the rule for boxes
    that are cut.

    Args:
        key: the example's key.
        height: H.
        width: W.
        boxes: the objects' boxes (N, 4), in pixels of the image that is to be cut.
        mask: (N,), true for real boxes.
        smallest: least share of the area.
        aspect: largest ratio of width to height, or of height to width.
        visible: the share of the object that stays.
    """
    size_key, place_key, object_key = jax.random.split(key, 3)
    tall, wide = _rectangles(size_key, height, width, smallest, aspect, tries=50)
    down, right = jax.random.uniform(place_key, (2, 50))
    top, left = down * (height - tall), right * (width - wide)
    chosen = jax.random.categorical(object_key, jnp.where(mask, 0.0, -jnp.inf))
    box = jnp.where(mask.any(), boxes[chosen], 0.0)[None]
    rectangles = jnp.stack([top, left, top + tall, left + wide], -1)
    good = intersection(rectangles, box) >= visible * area(box)
    good &= (tall <= height) & (wide <= width)
    first = jnp.argmax(good)
    cut = _matrix(tall[first] / height, 0.0, top[first], 0.0, wide[first] / width, left[first])
    return jnp.where(good.any(), cut, jnp.eye(3))


def _rectangles(
    key: jax.Array, height: int, width: int, smallest: float, aspect: float, tries: int
) -> tuple[jax.Array, jax.Array]:
    """Draws heights and widths of rectangles, (tries,) each, which may not fit into the image."""
    share, stretch = jax.random.uniform(key, (2, tries))
    size = height * width * (smallest + (1 - smallest) * share)
    ratio = aspect ** (2 * stretch - 1)
    return jnp.sqrt(size / ratio), jnp.sqrt(size * ratio)


def rotate(key: jax.Array, height: int, width: int, *, degrees: float = 10.0) -> jax.Array:
    """Turns the image about its centre.

    Args:
        key: the example's key.
        height: H.
        width: W.
        degrees: largest angle to either side.
    """
    angle = jnp.deg2rad(degrees) * jax.random.uniform(key, minval=-1.0)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return about_centre(height, width, yy=cosine, yx=-sine, xy=sine, xx=cosine)


def scale(key: jax.Array, height: int, width: int, *, factor: float = 1.1) -> jax.Array:
    """Enlarges or shrinks the image about its centre, by one factor along both axes.

    Its logarithm is uniform.

    Args:
        key: the example's key.
        height: H.
        width: W.
        factor: the largest factor; the smallest is its inverse.
    """
    inverse = factor ** jax.random.uniform(key, minval=-1.0)
    return about_centre(height, width, yy=inverse, xx=inverse)


def affine(
    key: jax.Array,
    height: int,
    width: int,
    *,
    rotation: float = 10.0,
    stretch: float = 0.1,
    shear: float = 0.1,
    shift: float = 0.0625,
) -> jax.Array:
    """Turns, stretches, shears and shifts the image by small amounts.

    Args:
        key: the example's key.
        height: H.
        width: W.
        rotation: largest angle to either side, in degrees.
        stretch: largest logarithm of the factor along each axis.
        shear: largest shear, as a tangent.
        shift: largest shift along each axis, as a share of the side.
    """
    limits = jnp.array([jnp.deg2rad(rotation), stretch, stretch, shear, shift, shift], jnp.float32)
    drawn = limits * jax.random.uniform(key, limits.shape, minval=-1.0)
    angle, stretch_y, stretch_x, slant, down, right = drawn
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    scale_y, scale_x = jnp.exp(stretch_y), jnp.exp(stretch_x)
    turned = about_centre(
        height,
        width,
        yy=scale_y * cosine,
        yx=scale_y * (slant - sine),
        xy=scale_x * sine,
        xx=scale_x * cosine,
    )
    return turned.at[:2, 2].add(jnp.stack([down * height, right * width]))


def about_centre(
    height: int,
    width: int,
    *,
    yy: Number = 1.0,
    yx: Number = 0.0,
    xy: Number = 0.0,
    xx: Number = 1.0,
) -> jax.Array:
    """Returns the linear map [[yy, yx], [xy, xx]] that keeps the image's centre in place."""
    y, x = height / 2, width / 2
    return _matrix(yy, yx, y - (yy * y + yx * x), xy, xx, x - (xy * y + xx * x))


def _matrix(yy: Number, yx: Number, y: Number, xy: Number, xx: Number, x: Number) -> jax.Array:
    numbers = [jnp.asarray(number, jnp.float32) for number in (yy, yx, y, xy, xx, x, 0, 0, 1)]
    return jnp.stack(numbers).reshape(3, 3)
