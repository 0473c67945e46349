"""RandAugment: a few operations drawn from fourteen, all with one magnitude (Cubuk et al. 2020).

Each image gets N operations, drawn uniformly and with replacement from the fourteen of the paper.
The magnitude M runs from 0 to `LARGEST`; with m = M / LARGEST and a sign drawn for each operation
they are:
  - identity, autocontrast, equalize: no magnitude.
  - rotate: by +-30 m degrees about the centre.
  - shear_x, shear_y: by a tangent of +-0.3 m about the centre.
  - translate_x, translate_y: by +-0.45 m of the side.
  - posterize: keeps the highest 8 - round(4 m) bits of each value.
  - solarize: maps values v from 256 (1 - m) on to 255 - v.
  - color, contrast, brightness, sharpness: keep 1 +- 0.9 m of the distance from the grey image, its
    mean, black, and the smoothed image.
These are the ranges of AutoAugment (Cubuk et al. 2019, table 6), and the operations of the Pillow
library, without its rounding.

As in all augmentation here, maps of pixels share one interpolation and come before the colours: of
the drawn operations those that move pixels come first, then the others, both in their order. Boxes
and landmarks follow the pixels.

Every function takes the example's own key; images (H, W, C) are floats of 0..255.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dlcore.nn.augment.colour import GREY
from dlcore.nn.augment.geometry import about_centre

LARGEST = 30
GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def _kept(image: jax.Array, m: jax.Array) -> jax.Array:
    del m
    return image


def autocontrast(image: jax.Array, m: jax.Array) -> jax.Array:
    """Stretches the values of each channel to 0..255; a constant channel stays as it is."""
    del m
    low, high = image.min((0, 1), keepdims=True), image.max((0, 1), keepdims=True)
    stretched = (image - low) * (255 / jnp.where(high > low, high - low, 1))
    return jnp.where(high > low, stretched, image)


def equalize(image: jax.Array, m: jax.Array) -> jax.Array:
    """Spreads the values of each channel so that all of 0..255 are about as frequent."""
    del m
    channels = image.shape[-1]
    values = image.astype(jnp.int32).reshape(-1, channels)
    counts = jnp.zeros((256, channels), jnp.int32).at[values, jnp.arange(channels)[None]].add(1)
    last = jnp.take_along_axis(counts, values.max(0, keepdims=True), 0)
    step = (len(values) - last) // 255
    before = jnp.cumsum(counts, 0, dtype=counts.dtype) - counts
    table = jnp.clip((before + step // 2) // jnp.maximum(step, 1), 0, 255)
    spread = jnp.take_along_axis(table, values, 0).reshape(image.shape).astype(image.dtype)
    return jnp.where(step.reshape(1, 1, channels) > 0, spread, image)


def posterize(image: jax.Array, m: jax.Array) -> jax.Array:
    """Keeps the highest 8 - round(4 |m|) bits."""
    size = 2 ** jnp.round(4 * jnp.abs(m))
    return jnp.where(size > 1, jnp.floor(image / size) * size, image)


def solarize(image: jax.Array, m: jax.Array) -> jax.Array:
    """Inverts the values from 256 (1 - |m|) on."""
    return jnp.where(image >= 256 * (1 - jnp.abs(m)), 255 - image, image)


def color(image: jax.Array, m: jax.Array) -> jax.Array:
    """Keeps 1 + 0.9 m of the distance from the grey image; images without colours stay."""
    return _blend(_grey(image), image, m)


def contrast(image: jax.Array, m: jax.Array) -> jax.Array:
    """Keeps 1 + 0.9 m of the distance from the mean of the grey image."""
    return _blend(_grey(image).mean(), image, m)


def brightness(image: jax.Array, m: jax.Array) -> jax.Array:
    """Multiplies by 1 + 0.9 m."""
    return _blend(jnp.zeros_like(image), image, m)


def sharpness(image: jax.Array, m: jax.Array) -> jax.Array:
    """Keeps 1 + 0.9 m of the distance from the smoothed image, which keeps its outermost pixels.

    A smoothed pixel is the mean of its 3x3 neighbourhood, in which its own weight is 5.
    """
    height, width = image.shape[:2]
    if min(height, width) < 3:
        return image
    total = 4 * image[1:-1, 1:-1]
    for row in range(3):
        for column in range(3):
            total += image[row : height - 2 + row, column : width - 2 + column]
    return _blend(image.at[1:-1, 1:-1].set(total / 13), image, m)


# The operations that move no pixels: (image, signed m) -> image.
COLOURS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "identity": _kept,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "posterize": posterize,
    "solarize": solarize,
    "color": color,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
}
OPERATIONS = (*COLOURS, *GEOMETRY)


def drawn(key: jax.Array, number: int, magnitude: float) -> tuple[jax.Array, jax.Array]:
    """Returns the indices in `OPERATIONS` for an example, (N,), and their signed m, (N,)."""
    which_key, sign_key = jax.random.split(key)
    which = jax.random.randint(which_key, (number,), 0, len(OPERATIONS))
    signs = jnp.where(jax.random.bernoulli(sign_key, shape=(number,)), 1.0, -1.0)
    return which, signs * (magnitude / LARGEST)


def rand_map(
    key: jax.Array, height: int, width: int, *, number: int = 2, magnitude: float = 9.0
) -> jax.Array:
    """Returns the map (3, 3) of the drawn operations that move pixels, see `geometry`.

    Args:
        key: the example's key.
        height: H.
        width: W.
        number: N, the number of operations per image.
        magnitude: M.
    """
    which, strengths = drawn(key, number, magnitude)
    whole = jnp.eye(3)
    for i in range(number):

        def only(name: str, largest: float, i: int = i) -> jax.Array:
            return jnp.where(which[i] == OPERATIONS.index(name), largest * strengths[i], 0.0)

        angle = jnp.deg2rad(only("rotate", 30.0))
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        one = about_centre(
            height,
            width,
            yy=cosine,
            yx=only("shear_y", 0.3) - sine,
            xy=only("shear_x", 0.3) + sine,
            xx=cosine,
        )
        down, right = only("translate_y", 0.45 * height), only("translate_x", 0.45 * width)
        one = one.at[:2, 2].add(jnp.stack([down, right]))
        whole = jnp.matmul(whole, one, precision="highest")
    return whole


def rand_colours(
    key: jax.Array, image: jax.Array, *, number: int = 2, magnitude: float = 9.0
) -> jax.Array:
    """Applies the drawn operations that move no pixels to an image (H, W, C).

    Args:
        key: the example's key.
        image: (H, W, C).
        number: N, the number of operations per image.
        magnitude: M.
    """
    which, strengths = drawn(key, number, magnitude)
    for i in range(number):
        branch = jnp.where(which[i] < len(COLOURS), which[i], 0)
        image = jax.lax.switch(branch, [*COLOURS.values()], image, strengths[i])
    return image


def _grey(image: jax.Array) -> jax.Array:
    if image.shape[-1] != len(GREY):
        return image
    weights = jnp.array(GREY, image.dtype).reshape(1, 1, -1)
    return (image * weights).sum(-1, keepdims=True)


def _blend(plain: jax.Array, image: jax.Array, m: jax.Array) -> jax.Array:
    return jnp.clip(plain + (1 + 0.9 * m) * (image - plain), 0, 255)
