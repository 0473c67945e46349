"""Octaves: a picture at several sizes, with details that carry over from one size to the next.

Mordvintsev et al. 2015 (Inceptionism) dream on the smallest size first, so that the shapes that
appear there are enlarged and refined on the larger sizes. Here each octave has details of its own,
and the picture of an octave is the original at its size plus the enlarged details of all octaves up
to it. So carrying details over is a function of the details, not a separate step of training.

Shapes: B batch, H W picture, C channels; h w the size of an octave.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dlcore.errors import InputError
from dlcore.nn.augment.geometry import about_centre
from dlcore.nn.augment.warp import warp_images

Size = tuple[int, int]


def octave_sizes(height: int, width: int, *, octaves: int, scale: float) -> tuple[Size, ...]:
    """Returns the sizes (h, w) of the octaves, the smallest first and (H, W) last.

    Args:
        height: H.
        width: W.
        octaves: the number of octaves.
        scale: the factor from each size to the next; sizes are rounded to whole pixels.

    Raises:
        InputError: when two octaves would have the same size, or one of them no pixel.

    >>> octave_sizes(427, 640, octaves=3, scale=1.4)
    ((218, 327), (305, 457), (427, 640))
    """
    sizes = tuple(
        (round(height / scale**power), round(width / scale**power))
        for power in reversed(range(octaves))
    )
    if len(set(sizes)) < octaves or min(sizes[0]) < 1:
        raise InputError(
            f"{octaves} octaves of {height}x{width} pixels with a factor of {scale:g} have the "
            f"sizes {', '.join(f'{h}x{w}' for h, w in sizes)}; give fewer octaves or a larger "
            "factor, so that each is larger than the one before"
        )
    return sizes


def resize(pictures: jax.Array, size: Size) -> jax.Array:
    """Resizes pictures (B, H, W, C) to (B, h, w, C), bilinearly, and smooths if they shrink."""
    return jax.image.resize(
        pictures, (pictures.shape[0], *size, pictures.shape[3]), "bilinear", antialias=True
    )


def carried(details: Sequence[jax.Array]) -> jax.Array:
    """Returns the sum of the details of octaves, at the size of the last one.

    The sums are D_1 = d_1 and D_o = resize(D_(o-1)) + d_o.

    Args:
        details: the details (B, h, w, C) of each octave, the smallest first.
    """
    total = details[0]
    for own in details[1:]:
        total = resize(total, (own.shape[1], own.shape[2])) + own
    return total


def roll(pictures: jax.Array, key: jax.Array, most: int) -> jax.Array:
    """Shifts pictures by a random number of pixels, cyclically.

    Mordvintsev et al. call this jitter; it keeps the network's strides and borders from favouring
    any position.

    Args:
        pictures: (B, H, W, C).
        key: the key of the step.
        most: the largest shift along each axis, to either side.
    """
    return jnp.roll(pictures, jax.random.randint(key, (2,), -most, most + 1), (1, 2))


def zoom_in(pictures: jax.Array, share: float) -> jax.Array:
    """Cuts off a share of the height and the width and enlarges the rest to the old size.

    Args:
        pictures: (B, H, W, C).
        share: the share of the height and of the width, from 0 to below 1, half of it at each end.
    """
    count, height, width, _ = pictures.shape
    to_input = about_centre(height, width, yy=1 - share, xx=1 - share)
    return warp_images(pictures, jnp.broadcast_to(to_input[None], (count, 3, 3)))
