"""Test-time augmentation: averages a classifier's predictions over several views of an image.

A view is a function from images (B, H, W, C) to images of the same shape. Shapes: B batch, H W
image, C channels, K classes.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

View = Callable[[jax.Array], jax.Array]


def _whole(images: jax.Array) -> jax.Array:
    return images


def _mirrored(images: jax.Array) -> jax.Array:
    return images[:, :, ::-1]


def _crop(images: jax.Array, *, down: float, right: float) -> jax.Array:
    """Cuts out 7/8 of each side, at the offset down, right in 0..1, and resizes it to full size."""
    height, width = images.shape[1:3]
    size = -(-7 * height // 8), -(-7 * width // 8)
    top, left = round(down * (height - size[0])), round(right * (width - size[1]))
    crop = images[:, top : top + size[0], left : left + size[1]]
    return jax.image.resize(crop, images.shape, "bilinear")


_CROPS = tuple(
    functools.partial(_crop, down=down, right=right)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5))
)
# Krizhevsky et al. 2012 (section 4.1) take the four corners, the centre and their mirror images,
# 224 of 256 pixels wide.
VIEWS: dict[str, tuple[View, ...]] = {
    "one": (_whole,),
    "flip": (_whole, _mirrored),
    "ten_crop": (*_CROPS, *(lambda images, crop=crop: _mirrored(crop(images)) for crop in _CROPS)),
}


def over_views(
    predict: Callable[[jax.Array], jax.Array], views: tuple[View, ...]
) -> Callable[[jax.Array], jax.Array]:
    """Makes a classifier return the logarithm of its mean probabilities over several views.

    Args:
        predict: images (B, H, W, C) -> logits (B, K).
        views: a value of `VIEWS`; a single view leaves the logits as they are.
    """
    if len(views) == 1:
        return lambda images: predict(views[0](images))

    def mean(images: jax.Array) -> jax.Array:
        logits = [predict(view(images)).astype(jnp.float32) for view in views]
        return jax.nn.logsumexp(jax.nn.log_softmax(jnp.stack(logits)), 0) - jnp.log(len(views))

    return mean
