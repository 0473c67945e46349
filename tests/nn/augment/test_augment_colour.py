import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.spatial.transform import Rotation

from dlcore.errors import InputError
from dlcore.nn.augment import colour, principal_colours

RNG = np.random.default_rng(0)
IMAGE = RNG.uniform(0, 255, (6, 7, 3)).astype(np.float32)
# Nothing is clipped, so that the plain versions need not be either.
PALE = RNG.uniform(110, 140, (6, 7, 3)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), 5)


def run(step, image, keys=KEYS, **options):
    """Augments one image with each of the keys."""
    mapped = jax.vmap(lambda key: step(key, jnp.asarray(image), **options))
    return np.asarray(jax.jit(mapped)(keys))


def factors(strength):
    """Returns the number that each key draws between -strength and strength."""
    return [strength * float(jax.random.uniform(key, minval=-1.0)) for key in KEYS]


def assert_likely(hits, tries, probability):
    """Asserts that `hits` lies in the range that a binomial leaves once in a million draws."""
    low, high = stats.binom.interval(1 - 1e-6, tries, probability)
    assert low <= hits <= high, f"{hits} of {tries} at {probability}"


def plain_brightness(image, factor):
    return np.clip((1 + factor) * image, 0, 255)


def plain_contrast(image, factor):
    mean = np.mean(image)
    return np.clip((1 + factor) * image - factor * mean, 0, 255)


def plain_saturation(image, factor):
    red, green, blue = np.moveaxis(image, -1, 0)
    grey = (0.299 * red + 0.587 * green + 0.114 * blue)[..., None]
    return np.clip((1 + factor) * image - factor * grey, 0, 255)


@pytest.mark.parametrize("image", [IMAGE, PALE], ids=["clipped", "not clipped"])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_strengths_equal_the_plain_versions(name, image):
    found = run(getattr(colour, name), image, strength=0.9)
    for result, factor in zip(found, factors(0.9), strict=True):
        expected = globals()[f"plain_{name}"](image.astype(np.float64), factor)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-3)


def test_hue_is_a_rotation_about_the_grey_axis():
    found = run(colour.hue, PALE, turn=0.4)
    for result, share in zip(found, factors(0.4), strict=True):
        turn = Rotation.from_rotvec(2 * np.pi * share * np.ones(3) / np.sqrt(3))
        expected = turn.apply(PALE.reshape(-1, 3)).reshape(PALE.shape)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-3)
        np.testing.assert_allclose(result.mean(-1), PALE.mean(-1), rtol=0, atol=1e-3)


def test_hue_turns_the_colour_wheel_the_usual_way():
    """A positive share turns red towards green, as the hue of HSV counts."""
    red = np.broadcast_to(np.float32([160, 100, 100]), (2, 2, 3))
    for result, share in zip(run(colour.hue, red, turn=0.3), factors(0.3), strict=True):
        hue, _, _ = colorsys.rgb_to_hsv(*(result[0, 0] / 255))
        assert abs((hue - share + 0.5) % 1 - 0.5) < 0.02


def test_principal_colours_rebuild_the_covariance():
    images = np.stack([IMAGE, PALE, IMAGE[::-1] * 0.5])
    values, vectors = principal_colours(images)
    pixels = images.reshape(-1, 3) / 255
    spread = pixels - pixels.mean(0)
    covariance = spread.T @ spread / len(pixels)
    np.testing.assert_allclose((vectors * values) @ vectors.T, covariance, rtol=0, atol=1e-6)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), rtol=0, atol=1e-6)
    values, vectors = principal_colours(images[..., :1])
    np.testing.assert_allclose(values, covariance[:1, 0], rtol=1e-5)
    assert vectors.shape == (1, 1)


def test_lighting_adds_multiples_of_the_principal_colours():
    values, vectors = principal_colours(IMAGE[None])
    found = run(colour.lighting, PALE, deviation=0.2, eigenvalues=values, eigenvectors=vectors)
    for key, result in zip(KEYS, found, strict=True):
        amounts = 0.2 * np.asarray(jax.random.normal(key, (1, 3)))[0]
        added = sum(amounts[i] * values[i] * vectors[:, i] for i in range(3))
        np.testing.assert_allclose(result, PALE + 255 * added, rtol=0, atol=1e-3)


def test_the_deviation_of_lighting_is_as_said():
    keys = jax.random.split(jax.random.key(1), 2000)
    grey = np.full((1, 1, 1), 128, np.float32)
    one = {"eigenvalues": np.ones(1), "eigenvectors": np.ones((1, 1))}
    added = run(colour.lighting, grey, keys, deviation=0.1, **one) - 128
    assert_likely((np.abs(added) < 25.5).sum(), 2000, stats.norm.cdf(1) - stats.norm.cdf(-1))


def test_noise_is_independent_and_normal():
    grey = np.full((40, 40, 3), 128, np.float32)
    added = run(colour.noise, grey, deviation=10.0) - 128
    for limit in (5, 10, 20):
        share = stats.norm.cdf(limit / 10) - stats.norm.cdf(-limit / 10)
        assert_likely((np.abs(added) < limit).sum(), added.size, share)
    assert_likely((added > 0).sum(), added.size, 0.5)
    same = (added[:, 1:] > 0) == (added[:, :-1] > 0)
    assert_likely(same.sum(), same.size, 0.5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("brightness", {"strength": 1.0}),
        ("contrast", {"strength": 1.0}),
        ("saturation", {"strength": 1.0}),
        ("hue", {"turn": 0.5}),
        ("noise", {"deviation": 100.0}),
        ("lighting", {"eigenvalues": np.full(3, 9.0), "eigenvectors": np.eye(3)}),
    ],
)
def test_results_stay_in_range(name, options):
    extremes = np.float32(RNG.integers(0, 2, (8, 8, 3)) * 255)
    found = run(getattr(colour, name), extremes, **options)
    assert found.min() >= 0 and found.max() <= 255 and np.ptp(found) > 100


@pytest.mark.parametrize("name", ["saturation", "hue"])
def test_grey_images_have_no_colours(name):
    with pytest.raises(InputError, match=f"{name} needs red, green and blue and .* 1 channel"):
        run(getattr(colour, name), IMAGE[..., :1])


def test_principal_colours_of_other_channels_are_refused():
    values, vectors = principal_colours(IMAGE[None])
    with pytest.raises(InputError, match="have 3 channels but the images have 1; measure"):
        run(colour.lighting, IMAGE[..., :1], eigenvalues=values, eigenvectors=vectors)


@pytest.mark.parametrize("size", [1, 4, 5])
def test_cutout_fills_a_square_that_may_reach_over_the_edge(size):
    keys = jax.random.split(jax.random.key(2), 40)
    found = run(colour.cutout, IMAGE, keys, size=size, fill=(1.0, 2.0, 3.0))
    for key, result in zip(keys, found, strict=True):
        row, column = np.asarray(jax.random.randint(key, (2,), 0, np.array([6, 7])))
        expected = IMAGE.copy()
        top, left = row - size // 2, column - size // 2
        expected[max(top, 0) : top + size, max(left, 0) : left + size] = [1, 2, 3]
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("size", [6, 7, 99])
def test_a_cutout_that_could_leave_nothing_is_refused(size):
    keys = jax.random.split(jax.random.key(2), 200)
    found = run(colour.cutout, IMAGE, keys, size=5, fill=-1.0)
    assert (found != -1).any(axis=(1, 2, 3)).all()
    with pytest.raises(InputError, match=f"cutout of {size} .* 6x7; choose at most 5"):
        run(colour.cutout, IMAGE, keys, size=size)


def test_the_centre_of_cutout_is_any_pixel():
    keys = jax.random.split(jax.random.key(3), 2000)
    found = run(colour.cutout, np.ones((3, 4, 1), np.float32), keys, size=1)
    for count in (found == 0).sum((0, 3)).ravel():
        assert_likely(count, 2000, 1 / 12)
