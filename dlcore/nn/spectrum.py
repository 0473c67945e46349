"""Pictures as spectra of decorrelated colours, where gradients do not favour high frequencies.

Olah et al. 2017 (Feature Visualization, "Preconditioning and Parameterization") change the
coefficients of a Fourier transform, each scaled so that all frequencies have the same energy as in
photographs, and colours along axes along which the colours of photographs do not correlate.

Shapes: B pictures, H W their size, C channels, F = W // 2 + 1 frequencies along a row.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Deviation of the coefficients at the start, and the factor of their pictures, of the authors'
# program Lucid.
START_DEVIATION = 0.01
CONTRAST = 0.25


def start_spectrum(key: jax.Array, shape: tuple[int, int, int, int]) -> jax.Array:
    """Draws a spectrum of pictures (B, H, W, C) close to grey: (B, H, F, C, 2), normal.

    The last axis holds the real and the imaginary part.
    """
    count, height, width, channels = shape
    size = (count, height, width // 2 + 1, channels, 2)
    return START_DEVIATION * jax.random.normal(key, size)


def spectrum_scale(height: int, width: int, *, decay: float = 1.0) -> np.ndarray:
    """Returns the factors of the coefficients, float32 (H, F).

    They are sqrt(H W) / max(f, 1 / max(H, W))^decay at the frequency f, in cycles per pixel.
    Amplitudes of photographs fall with 1 / f (Field 1987), which is a decay of 1.

    Args:
        height: H.
        width: W.
        decay: the power of the frequency.
    """
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    limited = np.maximum(frequencies, 1 / max(height, width))
    return (np.sqrt(height * width) / limited**decay).astype(np.float32)


def from_spectrum(spectrum: jax.Array, width: int, *, decay: float = 1.0) -> jax.Array:
    """Returns the values (B, H, W, C) of a spectrum (B, H, F, C, 2), around 0 and without bounds.

    Args:
        spectrum: the coefficients, before they are scaled by frequency.
        width: W, which F determines only up to one pixel.
        decay: as for `spectrum_scale`.
    """
    height = spectrum.shape[1]
    scale = jnp.asarray(spectrum_scale(height, width, decay=decay))[None, :, :, None]
    scaled = jax.lax.complex(spectrum[..., 0] * scale, spectrum[..., 1] * scale)
    return CONTRAST * jnp.fft.irfft2(scaled, (height, width), (1, 2))


def colour_axes(pixels: np.ndarray) -> np.ndarray:
    """Returns the square root of the covariance of colours, float32 (C, C), scaled.

    Its columns are the principal axes of the colours, each with its deviation as length, scaled so
    that the longest has length 1. Independent values of equal deviation, times its transpose, are
    colours that correlate like the given ones.

    Args:
        pixels: the pixels (N, C) of photographs, of any scale.
    """
    values, axes = np.linalg.eigh(np.cov(np.asarray(pixels, np.float64), rowvar=False))
    order = np.argsort(values)[::-1]
    root = axes[:, order] * np.sqrt(np.maximum(values[order], 0))
    # The sign of an axis is arbitrary: its largest part is positive.
    largest = root[np.abs(root).argmax(0), np.arange(root.shape[1])]
    root *= np.where(largest < 0, -1, 1)
    return (root / np.linalg.norm(root, axis=0).max()).astype(np.float32)


def to_colours(values: jax.Array, axes: np.ndarray | jax.Array) -> jax.Array:
    """Maps values (B, H, W, C) along colour axes (C, C) to colours, which lie within 0 and 1.

    The logistic function keeps them there.
    """
    return jax.nn.sigmoid(jnp.einsum("bhwa,ca->bhwc", values, jnp.asarray(axes)))
