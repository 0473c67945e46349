"""Views of an image to average a classifier's answers over. Shapes: B batch, H W image, C channels.

A view is a function from images (B, H, W, C) to images of the same shape.
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
    """Seven eighths of the sides, brought to full size; down and right say from where, in 0..1."""
    height, width = images.shape[1:3]
    size = -(-7 * height // 8), -(-7 * width // 8)
    top, left = round(down * (height - size[0])), round(right * (width - size[1]))
    crop = images[:, top : top + size[0], left : left + size[1]]
    return jax.image.resize(crop, images.shape, "bilinear")


_CROPS = tuple(
    functools.partial(_crop, down=down, right=right)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5))
)
# The four corners, the centre and their mirror images are those of Krizhevsky et al. 2012, section
# 4.1, who cut 224 of 256 pixels.
VIEWS: dict[str, tuple[View, ...]] = {
    "one": (_whole,),
    "flip": (_whole, _mirrored),
    "ten_crop": (*_CROPS, *(lambda images, crop=crop: _mirrored(crop(images)) for crop in _CROPS)),
}


def over_views(
    predict: Callable[[jax.Array], jax.Array], views: tuple[View, ...]
) -> Callable[[jax.Array], jax.Array]:
    """The logarithm of the mean of the probabilities that a classifier gives to several views.

    Args:
        predict: images (B, H, W, C) -> logits (B, K).
        views: of `VIEWS`; with one of them the logits stay as they are.
    """
    if len(views) == 1:
        return lambda images: predict(views[0](images))

    def mean(images: jax.Array) -> jax.Array:
        logits = [predict(view(images)).astype(jnp.float32) for view in views]
        return jax.nn.logsumexp(jax.nn.log_softmax(jnp.stack(logits)), 0) - jnp.log(len(views))

    return mean
