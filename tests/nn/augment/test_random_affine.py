import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.nn.augment import geometry, warp_images
from dlcore.parallel import Part, part_of_batch, positions

IMAGES = np.random.default_rng(0).uniform(0, 255, (8, 9, 12, 2)).astype(np.float32)
STILL = {"rotation": 0.0, "stretch": 0.0, "shear": 0.0, "shift": 0.0}


def random_affine(key, images, **limits):
    """Maps each image by its own affine map."""
    height, width = images.shape[1:3]

    def draw(position):
        return geometry.affine(jax.random.fold_in(key, position), height, width, **limits)

    # Which part of the batch it is, is known while tracing: no trace is used again.
    return jax.jit(lambda images: warp_images(images, jax.vmap(draw)(positions(len(images)))))(
        images
    )


def test_without_any_change_images_stay_as_they_are():
    found = random_affine(jax.random.key(0), jnp.asarray(IMAGES), **STILL)
    np.testing.assert_array_equal(found, IMAGES)


@pytest.mark.parametrize(
    ("change", "limit"),
    [({"rotation": 10.0}, np.deg2rad(10)), ({"shift": 0.1}, 0.1), ({"shear": 0.2}, 0.2)],
)
def test_a_ramp_shows_the_size_of_each_change(change, limit):
    """In an image whose values are row numbers, the differences at the centre give the map."""
    ramp = np.tile(np.arange(40.0, dtype=np.float32)[:, None, None], (1, 40, 1))
    ramps = jnp.asarray(np.tile(ramp, (200, 1, 1, 1)))
    found = np.asarray(random_affine(jax.random.key(0), ramps, **STILL | change))[..., 0]
    centre = found[:, 15:25, 15:25]
    slope_x = np.diff(centre, axis=2).mean((1, 2))
    offset = (centre - ramps[:, 15:25, 15:25, 0]).mean((1, 2)) / 40
    size = np.arcsin(np.abs(slope_x)) if "rotation" in change else np.abs(slope_x)
    size = np.abs(offset) if "shift" in change else size
    assert limit * 0.9 < size.max() <= limit * 1.001
    assert len(np.unique(size.round(6))) > 190


def test_stretch_keeps_within_its_limit():
    ramp = np.tile(np.arange(40.0, dtype=np.float32)[:, None, None], (1, 40, 1))
    ramps = jnp.asarray(np.tile(ramp, (200, 1, 1, 1)))
    found = random_affine(jax.random.key(0), ramps, **STILL | {"stretch": 0.2})[:, 15:25, 20, 0]
    factors = np.log(np.diff(found, axis=1).mean(1))
    assert 0.18 < np.abs(factors).max() <= 0.2002 and factors.min() < 0 < factors.max()


def test_parts_of_the_batch_get_the_images_of_the_whole():
    key = jax.random.key(3)
    whole = random_affine(key, jnp.asarray(IMAGES))
    with part_of_batch(Part(offset=1, stride=2)):
        part = random_affine(key, jnp.asarray(IMAGES[1::2]))
    np.testing.assert_array_equal(part, whole[1::2])
