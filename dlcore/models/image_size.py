"""What the image models ask of their input, and how wide they are.

Shapes: B batch, H W image, C channels.
"""

import jax

from dlcore.errors import InputError


def require_size(model: str, images: jax.Array, smallest: int) -> None:
    """Checks images (B, H, W, C) against the smallest H and W that the model can take.

    Raises:
        InputError: when they are smaller.
        ValueError: when the input has not four axes.
    """
    if images.ndim != 4:
        raise ValueError(f"{model} takes images (B, H, W, C), got the shape {images.shape}")
    height, width = images.shape[1:3]
    if min(height, width) < smallest:
        raise InputError(
            f"images of {height}x{width} pixels are too small for {model}; the smallest size is "
            f"{smallest}x{smallest}: resize the images or choose another model"
        )


def scaled(channels: int, width: float) -> int:
    """The channels of a network that is `width` times as wide, at least one."""
    return max(1, round(channels * width))
