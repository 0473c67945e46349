"""The noise of denoising autoencoders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.nn.corruption import corrupt
from dlcore.parallel import Part, part_of_batch

X = np.random.default_rng(0).uniform(0.2, 0.8, (4, 50, 50, 1)).astype(np.float32)
KEY = jax.random.key(3)


def test_masking_sets_a_share_to_0():
    found = np.asarray(corrupt("masking", KEY, X, 0.3))
    changed = found != X
    assert (found[changed] == 0).all() and changed.mean() == pytest.approx(0.3, abs=0.02)


def test_salt_and_pepper_are_as_frequent():
    found = np.asarray(corrupt("salt_and_pepper", KEY, X, 0.3))
    changed = found != X
    assert set(np.unique(found[changed])) == {0, 1}
    for value in (0, 1):
        assert (found == value).mean() == pytest.approx(0.15, abs=0.015)


def test_gaussian_noise_has_its_deviation():
    noise = np.asarray(corrupt("gaussian", KEY, X, 0.3)) - X
    assert noise.std() == pytest.approx(0.3, abs=0.01) and abs(noise.mean()) < 0.01
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("kind", ["masking", "gaussian", "salt_and_pepper"])
def test_the_noise_of_an_example_goes_by_its_position(kind):
    whole = corrupt(kind, KEY, X, 0.5)
    with part_of_batch(Part(offset=2)):
        np.testing.assert_array_equal(corrupt(kind, KEY, X[2:], 0.5), whole[2:])
    half = corrupt(kind, KEY, jnp.asarray(X[:1], jnp.bfloat16), 0.5)
    assert half.dtype == jnp.bfloat16


def test_there_is_no_other_noise():
    with pytest.raises(InputError, match="unknown corruption 'snow'; choose one of: gaussian"):
        corrupt("snow", KEY, X, 0.5)
