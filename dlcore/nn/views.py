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
    """Cuts out 7/8 of each side, at an offset (down, right) in 0..1, and resizes the result."""
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


def mean_softmax(logits: jax.Array) -> jax.Array:
    """Returns the logarithm of the mean over the first axis of softmax(logits), float32."""
    return _log_mean(jax.nn.log_softmax(logits.astype(jnp.float32)))


def mean_sigmoid(logits: jax.Array) -> jax.Array:
    """Returns the logits of the mean over the first axis of sigmoid(logits), float32."""
    logits = logits.astype(jnp.float32)
    return _log_mean(jax.nn.log_sigmoid(logits)) - _log_mean(jax.nn.log_sigmoid(-logits))


def _log_mean(logarithms: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(logarithms, 0) - jnp.log(len(logarithms))


def over_views(
    predict: Callable[[jax.Array], jax.Array],
    views: tuple[View, ...],
    mean: Callable[[jax.Array], jax.Array] = mean_softmax,
) -> Callable[[jax.Array], jax.Array]:
    """Makes a classifier return its mean prediction over several views.

    Args:
        predict: images (B, H, W, C) -> logits (B, K).
        views: a value of `VIEWS`; a single view leaves the logits as they are.
        mean: maps logits (views, B, K) to the logits (B, K) of the mean probabilities:
            `mean_softmax`, or `mean_sigmoid` for independent labels.
    """
    if len(views) == 1:
        return lambda images: predict(views[0](images))
    return lambda images: mean(jnp.stack([predict(view(images)) for view in views]))
