"""Pictures as spectra of decorrelated colours, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.nn import spectrum

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("height", "width"), [(6, 8), (5, 7)])
def test_values_are_sums_of_waves(height, width):
    coefficients = RNG.normal(size=(1, height, width // 2 + 1, 2, 2)).astype(np.float32)
    found = jax.jit(spectrum.from_spectrum, static_argnums=1)(jnp.asarray(coefficients), width)
    expected = np.zeros((height, width, 2))
    y, x = np.mgrid[:height, :width]
    for row in range(height):
        for column in range(width // 2 + 1):
            fy = (row if row < (height + 1) // 2 else row - height) / height
            fx = column / width
            scale = np.sqrt(height * width) / max(np.hypot(fy, fx), 1 / max(height, width))
            real, imaginary = np.moveaxis(coefficients[0, row, column], -1, 0)
            angle = 2 * np.pi * (fy * y + fx * x)[..., None]
            wave = real * np.cos(angle) - imaginary * np.sin(angle)
            # A frequency between 0 and half a cycle stands for its mirror image too.
            count = 1 if column == 0 or 2 * column == width else 2
            expected += 0.25 * scale * count * wave / (height * width)
    np.testing.assert_allclose(found[0], expected, atol=2e-5)


def test_a_picture_of_the_start_is_close_to_grey_and_smooth():
    drawn = spectrum.start_spectrum(jax.random.key(0), (1, 64, 64, 3))
    assert drawn.shape == (1, 64, 33, 3, 2)
    values = np.asarray(jax.jit(spectrum.from_spectrum, static_argnums=1)(drawn, 64))
    assert 0.005 < values.std() < 0.1
    power = np.abs(np.fft.fft2(values[0, ..., 0])) ** 2
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    bands = [power[(frequency > low) & (frequency <= 2 * low)].mean() for low in (1 / 32, 1 / 8)]
    # Amplitudes fall with 1 / f: four times the frequency has a sixteenth of the power.
    assert bands[0] / bands[1] == pytest.approx(16, rel=0.5)


def test_colours_correlate_as_those_given():
    mixing = np.array([[3.0, 1, 0], [2, -1, 0.5], [2, -2, -0.5]])
    pixels = RNG.normal(size=(5000, 3)) @ mixing.T + 40
    axes = spectrum.colour_axes(pixels)
    covariance = np.cov(pixels, rowvar=False)
    longest = np.linalg.eigvalsh(covariance)[-1]
    np.testing.assert_allclose(axes @ axes.T, covariance / longest, atol=1e-5)
    values = RNG.normal(size=(1, 80, 90, 3)).astype(np.float32)
    found = np.asarray(jax.jit(spectrum.to_colours)(jnp.asarray(values), axes))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-values @ axes.T)), atol=1e-6)
    logits = np.log(found / (1 - found)).reshape(-1, 3)
    np.testing.assert_allclose(
        np.corrcoef(logits, rowvar=False), np.corrcoef(pixels, rowvar=False), atol=0.05
    )


def test_grey_photographs_have_one_axis():
    axes = spectrum.colour_axes(np.tile(np.arange(5.0)[:, None], (1, 3)))
    np.testing.assert_allclose(axes[:, 0], 1 / np.sqrt(3), rtol=1e-6)
    np.testing.assert_allclose(axes[:, 1:], 0, atol=1e-6)
