"""Views of images, and the mean of a classifier's predictions over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.nn.views import VIEWS, mean_sigmoid, mean_softmax, over_views

IMAGES = jax.random.uniform(jax.random.key(0), (2, 16, 24, 3))
KERNEL = jax.random.normal(jax.random.key(1), (16 * 24 * 3, 5))


def predict(images):
    return images.reshape(len(images), -1) @ KERNEL


def test_one_view_changes_nothing():
    np.testing.assert_array_equal(over_views(predict, VIEWS["one"])(IMAGES), predict(IMAGES))


@pytest.mark.parametrize(
    "mean, link", [(mean_softmax, jax.nn.softmax), (mean_sigmoid, jax.nn.sigmoid)]
)
@pytest.mark.parametrize("name, count", [("one", 1), ("flip", 2), ("ten_crop", 10)])
def test_probabilities_are_averaged(name, count, mean, link):
    views = VIEWS[name]
    assert len(views) == count
    probabilities = [link(predict(view(IMAGES))) for view in views]
    got = link(over_views(predict, views, mean)(IMAGES))
    np.testing.assert_allclose(got, np.mean(probabilities, 0), rtol=1e-4, atol=1e-7)


def test_mirrored_twice_is_the_image():
    mirror = VIEWS["flip"][1]
    np.testing.assert_array_equal(mirror(IMAGES), np.asarray(IMAGES)[:, :, ::-1])


def test_crops_lie_in_the_corners_and_the_centre():
    """On images whose values are positions, the mean of a crop's pixels shows where it lies."""
    row, column = np.meshgrid(np.arange(16.0), np.arange(24.0), indexing="ij")
    images = jnp.stack([row, column], -1)[None]
    centres = [np.asarray(view(images)).mean((0, 1, 2)) for view in VIEWS["ten_crop"]]
    expected = [(6.5, 10), (6.5, 13), (8.5, 10), (8.5, 13), (7.5, 11.5)]
    # The odd pixel of two halves lies at one side of the centre.
    np.testing.assert_allclose(centres, 2 * expected, atol=0.51)
    assert all(view(images).shape == images.shape for view in VIEWS["ten_crop"])


def test_a_symmetric_classifier_answers_the_same_with_flips():
    means = lambda images: images.mean((1, 2)) @ KERNEL[:3]  # noqa: E731
    np.testing.assert_allclose(
        over_views(means, VIEWS["flip"])(IMAGES), jax.nn.log_softmax(means(IMAGES)), atol=1e-6
    )
