"""Checks the size of images and scales the width of image models.

Shapes: B batch, H W image, C channels.
"""

import jax

from dlcore.errors import InputError


def require_image_size(model: str, images: jax.Array, smallest: int) -> None:
    """Checks images (B, H, W, C) against the smallest H and W that the model can take.

    Raises:
        InputError: when the images are smaller.
        ValueError: when the input does not have four axes.
    """
    if images.ndim != 4:
        raise ValueError(f"{model} takes images (B, H, W, C), got the shape {images.shape}")
    height, width = images.shape[1:3]
    if min(height, width) < smallest:
        raise InputError(
            f"images of {height}x{width} pixels are too small for {model}; the smallest size is "
            f"{smallest}x{smallest}: resize the images or choose another model"
        )


def scaled_channels(channels: int, width: float) -> int:
    """Returns the channels of a layer in a network that is `width` times as wide, at least one.

    >>> scaled_channels(64, 0.5), scaled_channels(3, 0.1)
    (32, 1)
    """
    return max(1, round(channels * width))
