"""Augmentation of colours, which moves no pixels, boxes or landmarks.

Every function takes the example's own key and one image (H, W, C), floats of 0..255, and returns
an image clipped to the same range.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.errors import InputError
from dlcore.nn.augment.warp import Fill, fill_values

# The weights of red, green and blue in perceived brightness (ITU-R BT.601).
GREY = (0.299, 0.587, 0.114)


def brightness(key: jax.Array, image: jax.Array, *, strength: float = 0.4) -> jax.Array:
    """Multiplies all values by a factor from 1 - strength to 1 + strength."""
    return _clip(image * _factor(key, strength))


def contrast(key: jax.Array, image: jax.Array, *, strength: float = 0.4) -> jax.Array:
    """Multiplies the distance from the image's mean by a factor from 1 -+ strength."""
    mean = image.mean()
    return _clip(mean + (image - mean) * _factor(key, strength))


def saturation(key: jax.Array, image: jax.Array, *, strength: float = 0.4) -> jax.Array:
    """Multiplies each pixel's distance from its grey by a factor from 1 -+ strength.

    Raises:
        InputError: when the image is not of red, green and blue.
    """
    _require_colour(image, "saturation")
    factor = _factor(key, strength)
    to_grey = jnp.tile(jnp.array(GREY)[None], (3, 1))
    return _recolour(image, to_grey + (jnp.eye(3) - to_grey) * factor)


def hue(key: jax.Array, image: jax.Array, *, turn: float = 0.1) -> jax.Array:
    """Turns each pixel about the grey axis red = green = blue, which keeps its mean.

    A third of a turn makes red green, green blue and blue red.

    Args:
        key: the example's key.
        image: (H, W, 3).
        turn: largest angle to either side, as a share of the full turn.

    Raises:
        InputError: when the image is not of red, green and blue.
    """
    _require_colour(image, "hue")
    angle = 2 * jnp.pi * turn * jax.random.uniform(key, minval=-1.0)
    # Rodrigues' formula for the axis (1, 1, 1) / sqrt(3), the channels being the coordinates.
    to_mean = jnp.full((3, 3), 1 / 3)
    across = jnp.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / jnp.sqrt(3.0)
    turned = (jnp.eye(3) - to_mean) * jnp.cos(angle) + across * jnp.sin(angle)
    return _recolour(image, to_mean + turned)


def lighting(
    key: jax.Array,
    image: jax.Array,
    *,
    deviation: float = 0.1,
    eigenvalues: np.ndarray,
    eigenvectors: np.ndarray,
) -> jax.Array:
    """Adds a random multiple of each principal component of the colours (Krizhevsky et al. 2012).

    This is the paper's [p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T, with a drawn once per image from a
    normal distribution. Its l belong to values of 0..1, so the sum is multiplied by 255.

    Args:
        key: the example's key.
        image: (H, W, C).
        deviation: the standard deviation of each a.
        eigenvalues: l, (C,), as `principal_colours` returns them.
        eigenvectors: p, (C, C), one in each column.

    Raises:
        InputError: when the eigenvalues or eigenvectors do not have C channels.
    """
    channels = image.shape[-1]
    if np.shape(eigenvalues) != (channels,) or np.shape(eigenvectors) != (channels, channels):
        raise InputError(
            f"the principal colours have {len(eigenvalues)} channels but the images have "
            f"{channels}; measure them on the same images"
        )
    amounts = deviation * jax.random.normal(key, (1, channels)) * jnp.asarray(eigenvalues)[None]
    colour = (jnp.asarray(eigenvectors) * amounts).sum(1)
    return _clip(image + 255 * colour.reshape(1, 1, channels))


def principal_colours(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the principal components of all pixels' colours, scaled to 0..1, for `lighting`.

    Args:
        images: (B, H, W, C) of 0..255.

    Returns:
        The eigenvalues of the covariance, float32 (C,), and its eigenvectors in the columns of a
        float32 (C, C).
    """
    pixels = np.asarray(images, np.float64).reshape(-1, np.shape(images)[-1]) / 255
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(pixels, rowvar=False, bias=True)))
    return values.astype(np.float32), vectors.astype(np.float32)


def noise(key: jax.Array, image: jax.Array, *, deviation: float = 8.0) -> jax.Array:
    """Adds independent Gaussian noise with a given standard deviation to every value."""
    return _clip(image + deviation * jax.random.normal(key, image.shape))


def cutout(key: jax.Array, image: jax.Array, *, size: int = 8, fill: Fill = 0.0) -> jax.Array:
    """Fills a square whose centre is any pixel, so that it may reach over the edge.

    DeVries & Taylor 2017 fill images of mean 0 with 0, in squares 16 pixels wide for CIFAR-10.

    Args:
        key: the example's key.
        image: (H, W, C).
        size: the side in pixels.
        fill: one value, or one for each channel; the paper takes the mean of the images.

    Raises:
        InputError: when nothing of an image could remain.
    """
    height, width = image.shape[:2]
    if size >= min(height, width):
        raise InputError(
            f"cutout of {size} pixels can leave nothing of images of {height}x{width}; choose at "
            f"most {min(height, width) - 1}"
        )
    limits = jnp.array([height, width])
    start = jax.random.randint(key, (2,), 0, limits) - size // 2
    inside = rectangle(height, width, start, start + size)
    return jnp.where(inside[..., None], fill_values(fill), image)


def rectangle(height: int, width: int, start: jax.Array, stop: jax.Array) -> jax.Array:
    """Returns a mask bool (H, W), true at (y, x) where start <= (y, x) < stop."""
    y, x = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    return (start[0] <= y) & (y < stop[0]) & (start[1] <= x) & (x < stop[1])


def _recolour(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """Multiplies each pixel's colour by a matrix (3, 3)."""
    return _clip(jnp.einsum("hwc,dc->hwd", image, matrix, precision="highest"))


def _factor(key: jax.Array, strength: float) -> jax.Array:
    return 1 + strength * jax.random.uniform(key, minval=-1.0)


def _clip(image: jax.Array) -> jax.Array:
    return jnp.clip(image, 0, 255)


def _require_colour(image: jax.Array, name: str) -> None:
    if image.shape[-1] != 3:
        raise InputError(
            f"{name} needs red, green and blue and the images have {image.shape[-1]} channel(s); "
            "leave it out; brightness and contrast work with any number"
        )
