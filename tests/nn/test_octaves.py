"""Octaves: sizes, details carried from one to the next, rolls and the recursive zoom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from dlcore.errors import InputError
from dlcore.nn import octaves

RNG = np.random.default_rng(0)


def enlarged(picture, size):
    """Bilinear enlargement in NumPy: pixel centres at halves, edges repeated."""
    for axis, new in enumerate(size):
        old = picture.shape[axis]
        centre = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(centre).astype(int)
        high, share = np.minimum(low + 1, old - 1), centre - low
        shape = [1] * picture.ndim
        shape[axis] = new
        share = share.reshape(shape)
        picture = picture.take(low, axis) * (1 - share) + picture.take(high, axis) * share
    return picture


def test_the_details_of_the_published_loop():
    """The loop over octaves, which keeps a picture, against the sum of details."""
    sizes = octaves.octave_sizes(13, 20, octaves=3, scale=1.5)
    assert sizes == ((6, 9), (9, 13), (13, 20))
    added = [RNG.normal(size=(*size, 3)) for size in sizes]
    detail = np.zeros((*sizes[0], 3))
    for own in added:
        detail = enlarged(detail, own.shape[:2])
        base = RNG.normal(size=own.shape)
        source = base + detail
        source = source + own  # the steps of gradient ascent
        detail = source - base
    found = jax.jit(octaves.carried)([jnp.asarray(own[None], jnp.float32) for own in added])
    np.testing.assert_allclose(found[0], detail, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"octaves": 4, "scale": 1.01}, {"octaves": 3, "scale": 20.0}, {"octaves": 2, "scale": 1.0}],
)
def test_octaves_of_one_size_or_without_a_pixel_are_refused(options):
    with pytest.raises(InputError, match="fewer octaves or a larger factor"):
        octaves.octave_sizes(13, 20, **options)


def test_a_roll_is_numpys_and_goes_as_far_as_it_may():
    picture = RNG.normal(size=(1, 7, 9, 2)).astype(np.float32)
    roll = jax.jit(octaves.roll, static_argnums=2)
    seen = set()
    for number in range(60):
        found = np.asarray(roll(jnp.asarray(picture), jax.random.key(number), 1))
        shifts = [
            (down, right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if (np.roll(picture, (down, right), (1, 2)) == found).all()
        ]
        assert len(shifts) == 1
        seen.add(shifts[0])
    assert len(seen) == 9
    np.testing.assert_array_equal(roll(jnp.asarray(picture), jax.random.key(3), 0), picture)


def test_the_zoom_reads_the_middle():
    picture = RNG.uniform(size=(1, 20, 30, 3)).astype(np.float32)
    found = jax.jit(octaves.zoom_in, static_argnums=1)(jnp.asarray(picture), 0.2)
    y = (np.arange(20) + 0.5 - 10) * 0.8 + 10 - 0.5
    x = (np.arange(30) + 0.5 - 15) * 0.8 + 15 - 0.5
    places = np.stack(np.meshgrid(y, x, indexing="ij"))
    for channel in range(3):
        expected = ndimage.map_coordinates(picture[0, ..., channel], places, order=1)
        np.testing.assert_allclose(found[0, ..., channel], expected, atol=1e-5)
