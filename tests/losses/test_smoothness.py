"""Total variation against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from dlcore.losses import total_variation


def test_it_is_the_mean_difference_of_neighbours_of_each_picture():
    pictures = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
    found = jax.jit(total_variation)(jnp.asarray(pictures))
    for picture, value in zip(pictures, found, strict=True):
        down = [abs(picture[i + 1, j, c] - picture[i, j, c]) for i, j, c in np.ndindex(3, 5, 3)]
        across = [abs(picture[i, j + 1, c] - picture[i, j, c]) for i, j, c in np.ndindex(4, 4, 3)]
        np.testing.assert_allclose(value, np.mean(down) + np.mean(across), rtol=1e-5)
