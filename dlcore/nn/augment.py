"""Augmentation of images: pure functions (key, images) -> images.

Each example draws from its own key, made from the batch's key and the example's position in the
global batch, so that every layout sees the same images. Shapes: B batch, H W image, C channels.
"""

import jax
import jax.numpy as jnp

from dlcore.nn.examples import positions


def random_affine(
    key: jax.Array,
    images: jax.Array,
    *,
    rotation: float = 10.0,
    stretch: float = 0.1,
    shear: float = 0.1,
    shift: float = 0.0625,
) -> jax.Array:
    """Images turned, stretched, sheared and shifted by a little, interpolated bilinearly.

    What comes from outside the image is 0.

    Args:
        key: of the batch.
        images: floats (B, H, W, C).
        rotation: largest angle to either side, in degrees.
        stretch: largest logarithm of the factor along each axis.
        shear: largest shear, as a tangent.
        shift: largest shift along each axis, as a share of the side.

    Returns:
        Floats (B, H, W, C).
    """
    limits = jnp.array([jnp.deg2rad(rotation), stretch, stretch, shear, shift, shift], jnp.float32)

    def draw(position: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, position)
        return limits * jax.random.uniform(own, limits.shape, minval=-1.0)

    angle, stretch_y, stretch_x, slant, up, left = jax.vmap(draw)(positions(len(images))).T
    # Where each pixel of the result comes from, around the centre: stretch * (rotation + shear).
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    height, width = images.shape[1:3]
    y = (jnp.arange(height) - (height - 1) / 2)[None, :, None]
    x = (jnp.arange(width) - (width - 1) / 2)[None, None, :]

    def from_pixels(*values: jax.Array) -> list[jax.Array]:
        return [value[:, None, None] for value in values]

    cosine, sine, slant = from_pixels(cosine, sine, slant)
    scale_y, scale_x, up, left = from_pixels(jnp.exp(stretch_y), jnp.exp(stretch_x), up, left)
    source_y = scale_y * (cosine * y + (slant - sine) * x) + (0.5 + up) * height - 0.5
    source_x = scale_x * (sine * y + cosine * x) + (0.5 + left) * width - 0.5
    return _bilinear(images, source_y, source_x)


def _bilinear(images: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """Images (B, H, W, C) read at the points (y, x), each (B, H, W); 0 outside."""
    batch, height, width, channels = images.shape
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    # A border of zeros stands for everything outside.
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    pixels = padded.reshape(batch, (height + 2) * (width + 2), channels)

    def at(row: jax.Array, column: jax.Array) -> jax.Array:
        row = jnp.clip(row.astype(jnp.int32) + 1, 0, height + 1)
        column = jnp.clip(column.astype(jnp.int32) + 1, 0, width + 1)
        index = (row * (width + 2) + column).reshape(batch, height * width, 1)
        return jnp.take_along_axis(pixels, index, 1).reshape(images.shape)

    upper = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down
