"""The drawn maps, and images read through them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from dlcore.errors import InputError
from dlcore.nn import augment
from dlcore.nn.augment import compose, geometry, warp

H, W = 9, 12
IMAGES = np.random.default_rng(0).uniform(0, 255, (6, H, W, 2)).astype(np.float32)
DRAWS = 2000
warp_images = jax.jit(augment.warp_images, static_argnames="fill")


def draw(step, count=DRAWS, height=H, width=W, **options):
    keys = jax.random.split(jax.random.key(5), count)
    return np.asarray(jax.jit(jax.vmap(lambda key: step(key, height, width, **options)))(keys))


def assert_likely(hits, tries, probability):
    """Asserts that `hits` lies in the range that a binomial leaves once in a million draws."""
    low, high = stats.binom.interval(1 - 1e-6, tries, probability)
    assert low <= hits <= high, f"{hits} of {tries} at {probability}"


def test_warping_equals_scipys_with_the_fill_outside():
    rng = np.random.default_rng(1)
    maps = np.tile(np.eye(3, dtype=np.float32), (6, 1, 1))
    maps[:, :2] += rng.uniform(-0.3, 0.3, (6, 2, 3)).astype(np.float32) * [1, 1, 9]
    fill = (7.0, 200.0)
    found = warp_images(jnp.asarray(IMAGES), jnp.asarray(maps), fill=fill)
    outside = 0
    for image, to_input, result in zip(IMAGES, maps, np.asarray(found), strict=True):
        for i, j in np.ndindex(H, W):
            y, x, _ = to_input @ [i + 0.5, j + 0.5, 1]
            inside = 0 <= y <= H and 0 <= x <= W
            outside += not inside
            for channel in range(2):
                (value,) = ndimage.map_coordinates(
                    image[..., channel], [[y - 0.5], [x - 0.5]], order=1, mode="nearest"
                )
                expected = value if inside else fill[channel]
                np.testing.assert_allclose(result[i, j, channel], expected, rtol=0, atol=2e-3)
    assert 50 < outside < 600


@pytest.mark.parametrize("text", ["resized_crop", "flip,crop:4", "scale:2,resized_crop,flip"])
def test_maps_that_are_axis_aligned_read_rows_and_columns(text, monkeypatch):
    """Rows and then columns give what one interpolation of all four neighbours gives."""
    images = jnp.asarray(np.random.default_rng(0).uniform(0, 255, (6, 12, 17, 3)), jnp.float32)
    arguments = jax.random.key(0), {"image": images}
    by_axis = jax.jit(augment.augmentation(text, fill=(1.0, 2.0, 3.0)))(*arguments)["image"]
    asked = []

    def of_all_neighbours(*args, axis_aligned, **options):
        asked.append(axis_aligned)
        return warp.warp_images(*args, **options)

    monkeypatch.setattr(compose, "warp_images", of_all_neighbours)
    plain = jax.jit(augment.augmentation(text, fill=(1.0, 2.0, 3.0)))(*arguments)["image"]
    assert asked == [True]
    np.testing.assert_allclose(by_axis, plain, rtol=0, atol=5e-3)
    for more in ("rotate", "randaugment"):
        jax.eval_shape(augment.augmentation(f"{text},{more}"), *arguments)
    assert asked == [True, False, False]


def test_flipping_is_exact_and_twice_nothing():
    maps = jnp.asarray(draw(geometry.flip, 6, probability=1.0))
    once = warp_images(jnp.asarray(IMAGES), maps)
    np.testing.assert_array_equal(once, IMAGES[:, :, ::-1])
    np.testing.assert_array_equal(warp_images(once, maps), IMAGES)
    np.testing.assert_array_equal(maps @ maps, np.tile(np.eye(3), (6, 1, 1)))
    np.testing.assert_array_equal(
        draw(geometry.flip, 6, probability=0.0), np.tile(np.eye(3), (6, 1, 1))
    )


def test_flips_are_as_frequent_as_said():
    assert_likely((draw(geometry.flip, probability=0.3)[:, 1, 1] < 0).sum(), DRAWS, 0.3)


def test_a_crop_is_that_of_the_padded_image_to_the_bit():
    maps = draw(geometry.crop, 6, padding=3)
    found = warp_images(jnp.asarray(IMAGES), jnp.asarray(maps))
    padded = np.pad(IMAGES, ((0, 0), (3, 3), (3, 3), (0, 0)))
    for image, to_input, result in zip(padded, maps, found, strict=True):
        top, left = (to_input[:2, 2] + 3).astype(int)
        np.testing.assert_array_equal(result, image[top : top + H, left : left + W])


def test_crops_go_everywhere_equally_often():
    maps = draw(geometry.crop, padding=2)
    np.testing.assert_array_equal(maps[:, :2, :2], np.tile(np.eye(2), (DRAWS, 1, 1)))
    places, counts = np.unique(maps[:, :2, 2], axis=0, return_counts=True)
    assert sorted(map(tuple, places)) == [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
    for count in counts:
        assert_likely(count, DRAWS, 1 / 25)


def test_a_padding_that_could_leave_nothing_is_refused():
    draw(geometry.crop, 1, padding=H - 1)
    with pytest.raises(InputError, match="crop with a padding of 9 .* 9x12; choose at most 8"):
        draw(geometry.crop, 1, padding=H)


def plain_resized_crop(key, height, width, *, smallest, aspect):
    """Returns top, left, rows and columns from the key's numbers, one try after the other."""
    size_key, place_key = jax.random.split(key)
    share, stretch = np.asarray(jax.random.uniform(size_key, (2, 10)), np.float64)
    tries = []
    for s, e in zip(share, stretch, strict=True):
        area = height * width * (smallest + (1 - smallest) * s)
        ratio = math.exp((2 * e - 1) * math.log(aspect))
        tries.append((math.sqrt(area / ratio), math.sqrt(area * ratio)))
    fitting = [(h, w) for h, w in tries if h <= height and w <= width]
    tall, wide = (fitting or tries)[0]
    tall, wide = min(tall, height), min(wide, width)
    down, right = np.asarray(jax.random.uniform(place_key, (2,)), np.float64)
    return down * (height - tall), right * (width - wide), tall, wide


@pytest.mark.parametrize(("height", "width"), [(30, 30), (10, 60)])
def test_resized_crops_equal_the_plain_ones_and_lie_inside(height, width):
    options = {"smallest": 0.2, "aspect": 2.0}
    maps = draw(geometry.resized_crop, 100, height, width, **options)
    for key, to_input in zip(jax.random.split(jax.random.key(5), 100), maps, strict=True):
        top, left, tall, wide = plain_resized_crop(key, height, width, **options)
        expected = [[tall / height, 0, top], [0, wide / width, left], [0, 0, 1]]
        np.testing.assert_allclose(to_input, expected, rtol=0, atol=1e-3)
        corners = to_input @ np.array([[0, 0, 1], [height, width, 1]]).T
        assert (corners[0] > -1e-3).all() and (corners[0] < height + 1e-3).all()
        assert (corners[1] > -1e-3).all() and (corners[1] < width + 1e-3).all()


def test_areas_and_aspects_of_resized_crops_are_spread_evenly():
    squares = draw(geometry.resized_crop, height=20, width=20, smallest=0.2, aspect=1.0)
    shares = (squares[:, 0, 0] * squares[:, 1, 1] - 0.2) / 0.8
    for count in np.histogram(shares, np.linspace(0, 1, 6))[0]:
        assert_likely(count, DRAWS, 1 / 5)
    maps = draw(geometry.resized_crop, height=20, width=20)
    aspects = np.log(maps[:, 1, 1] / maps[:, 0, 0])
    assert_likely((aspects > 0).sum(), DRAWS, 0.5)
    assert 0.95 * np.log(4 / 3) < np.abs(aspects).max() <= np.log(4 / 3) + 1e-5
    shares = maps[:, 0, 0] * maps[:, 1, 1]
    assert 0.08 - 1e-6 <= shares.min() < 0.09 and shares.max() > 0.95


def test_the_whole_image_as_a_crop_is_the_image():
    square = jnp.asarray(IMAGES[:, :, :H])
    maps = draw(geometry.resized_crop, 6, H, H, smallest=1.0, aspect=1.0)
    np.testing.assert_allclose(warp_images(square, jnp.asarray(maps)), square, rtol=0, atol=1e-3)


def test_rotations_turn_about_the_centre_by_even_angles():
    maps = draw(geometry.rotate, degrees=30.0)
    angles = np.rad2deg(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    for count in np.histogram(angles, np.linspace(-30, 30, 6))[0]:
        assert_likely(count, DRAWS, 1 / 5)
    centre = np.array([H / 2, W / 2, 1])
    np.testing.assert_allclose(maps @ centre, np.tile(centre, (DRAWS, 1)), rtol=0, atol=1e-5)
    turns = maps[:, :2, :2]
    np.testing.assert_allclose(
        turns @ turns.transpose(0, 2, 1), np.tile(np.eye(2), (DRAWS, 1, 1)), rtol=0, atol=1e-6
    )
    assert (np.linalg.det(turns) > 0.99).all()


def test_scales_are_even_in_their_logarithm_and_keep_the_centre():
    maps = draw(geometry.scale, factor=2.0)
    factors = -np.log2(maps[:, 0, 0])
    for count in np.histogram(factors, np.linspace(-1, 1, 6))[0]:
        assert_likely(count, DRAWS, 1 / 5)
    np.testing.assert_array_equal(maps[:, 0, 0], maps[:, 1, 1])
    assert not maps[:, 0, 1].any() and not maps[:, 1, 0].any()
    centre = np.array([H / 2, W / 2, 1])
    np.testing.assert_allclose(maps @ centre, np.tile(centre, (DRAWS, 1)), rtol=0, atol=1e-5)


def test_composed_maps_show_what_one_after_the_other_shows():
    flips = jnp.asarray(draw(geometry.flip, 6, probability=1.0))
    crops = jnp.asarray(draw(geometry.crop, 6, padding=2))
    step_by_step = functools.reduce(warp_images, [flips, crops], jnp.asarray(IMAGES))
    np.testing.assert_array_equal(warp_images(jnp.asarray(IMAGES), flips @ crops), step_by_step)
    assert not np.array_equal(warp_images(jnp.asarray(IMAGES), crops @ flips), step_by_step)
