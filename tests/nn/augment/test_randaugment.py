"""RandAugment: its operations against Pillow, its maps against matrices written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from dlcore.errors import InputError
from dlcore.nn.augment import augmentation, warp_images
from dlcore.nn.augment.rand import COLOURS, LARGEST, OPERATIONS, drawn, rand_map

H, W = 13, 11
PICTURE = np.random.default_rng(0).integers(20, 200, (H, W, 3)).astype(np.uint8)
LARGE = np.random.default_rng(1).integers(20, 200, (60, 50, 3)).astype(np.uint8)
PILLOW = {
    "identity": lambda picture, m: picture,
    "autocontrast": lambda picture, m: ImageOps.autocontrast(picture),
    "equalize": lambda picture, m: ImageOps.equalize(picture),
    "posterize": lambda picture, m: ImageOps.posterize(picture, 8 - round(4 * abs(m))),
    "solarize": lambda picture, m: ImageOps.solarize(picture, 256 * (1 - abs(m))),
    "color": lambda picture, m: ImageEnhance.Color(picture).enhance(1 + 0.9 * m),
    "contrast": lambda picture, m: ImageEnhance.Contrast(picture).enhance(1 + 0.9 * m),
    "brightness": lambda picture, m: ImageEnhance.Brightness(picture).enhance(1 + 0.9 * m),
    "sharpness": lambda picture, m: ImageEnhance.Sharpness(picture).enhance(1 + 0.9 * m),
}


def test_these_are_the_fourteen_operations():
    assert set(PILLOW) == set(COLOURS) and len(OPERATIONS) == 14


@pytest.mark.parametrize("name", PILLOW)
@pytest.mark.parametrize(
    "pixels",
    [
        PICTURE,
        pytest.param(LARGE, marks=pytest.mark.slow),
        pytest.param(PICTURE[..., :1], marks=pytest.mark.slow),
    ],
    ids=["small", "large", "grey"],
)
def test_operations_are_those_of_pillow(name, pixels):
    picture, operation = Image.fromarray(pixels.squeeze()), jax.jit(COLOURS[name])
    for m in (-0.9, -0.3, 0.4, 1.0):
        found = operation(jnp.asarray(pixels, jnp.float32), jnp.float32(m))
        expected = np.asarray(PILLOW[name](picture, m), float).reshape(pixels.shape)
        # Pillow rounds its grey image, its mean and its results.
        rounding = {"posterize": 0, "solarize": 0, "equalize": 0, "identity": 0}.get(name, 2)
        np.testing.assert_allclose(found, expected, rtol=0, atol=rounding)


def test_a_channel_of_one_value_stays():
    flat = jnp.full((4, 4, 3), 7.0)
    for name in ("autocontrast", "equalize"):
        np.testing.assert_array_equal(COLOURS[name](flat, jnp.float32(1)), flat)


def matrix(name, m):
    """The map of an operation, from points (y, x, 1) of the result to those of the input."""
    linear, shift = np.eye(2), np.zeros(2)
    match name:
        case "rotate":
            angle = np.deg2rad(30 * m)
            linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        case "shear_x":
            linear[1, 0] = 0.3 * m
        case "shear_y":
            linear[0, 1] = 0.3 * m
        case "translate_x":
            shift[1] = 0.45 * m * W
        case "translate_y":
            shift[0] = 0.45 * m * H
    centre = np.array([H / 2, W / 2])
    whole = np.eye(3)
    whole[:2, :2], whole[:2, 2] = linear, centre - linear @ centre + shift
    return whole


def test_maps_are_the_product_of_the_drawn_ones():
    keys = jax.random.split(jax.random.key(0), 200)
    which, strengths = jax.vmap(lambda key: drawn(key, 3, 12.0))(keys)
    maps = jax.jit(jax.vmap(lambda key: rand_map(key, H, W, number=3, magnitude=12.0)))(keys)
    for found, indices, of in zip(maps, which, strengths, strict=True):
        expected = np.eye(3)
        for index, m in zip(indices, of, strict=True):
            expected = expected @ matrix(OPERATIONS[index], float(m))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    # All operations and both signs are drawn about as often.
    counts = np.bincount(np.ravel(which), minlength=14)
    assert counts.min() > 600 / 14 / 2 and counts.max() < 600 / 14 * 2
    np.testing.assert_allclose(np.abs(strengths), 12 / LARGEST, rtol=1e-6)
    assert 0.4 < (np.asarray(strengths) > 0).mean() < 0.6


@pytest.mark.slow
def test_the_step_applies_what_its_key_draws_and_boxes_follow():
    count = 64
    batch = {
        "image": jnp.broadcast_to(jnp.asarray(PICTURE), (count, H, W, 3)),
        "boxes": jnp.tile(jnp.array([[[4.0, 4.0, 8.0, 7.0]]]), (count, 1, 1)),
        "boxes_mask": jnp.ones((count, 1), bool),
    }
    new = jax.jit(augmentation("randaugment:1:20"))(jax.random.key(3), batch)
    image = jnp.asarray(PICTURE, jnp.float32)
    options = {name: [] for name in OPERATIONS}
    for name in OPERATIONS:
        for m in (-20 / LARGEST, 20 / LARGEST):
            to_input = jnp.asarray(matrix(name, m), jnp.float32)
            moved = warp_images(image[None], to_input[None])[0]
            options[name].append(COLOURS[name](image, jnp.float32(m)) if name in COLOURS else moved)
    met = set()
    for picture, box in zip(new["image"], new["boxes"], strict=True):
        names = [
            name
            for name, pictures in options.items()
            if any(np.allclose(picture, one, rtol=0, atol=1e-2) for one in pictures)
        ]
        assert names
        met |= set(names)
        moved = not np.allclose(box, batch["boxes"][0], atol=1e-4)
        assert moved == any(name not in COLOURS for name in names)
    assert len(met) > 10


def test_magnitudes_have_a_range():
    with pytest.raises(InputError, match="magnitude is '31'; give a number from 0 to 30"):
        augmentation("randaugment:2:31")
    with pytest.raises(InputError, match="number is '0'; give a whole number from 1 to 14"):
        augmentation("randaugment:0")
