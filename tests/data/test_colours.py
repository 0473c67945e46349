"""Colours of one picture in the forms of another."""

import colorsys

import numpy as np

from dlcore.data.colours import grey, match_colours, with_colours_of

RNG = np.random.default_rng(0)
MIXED = np.array([[0.6, 0.2, 0.1], [0.0, 0.3, 0.1], [0.1, 0.0, 0.4]])
CONTENT = np.uint8(90 + 20 * RNG.normal(size=(30, 40, 3)) @ MIXED)
STYLE = np.uint8(140 + 10 * RNG.normal(size=(20, 50, 3)))


def test_matched_colours_have_mean_and_covariance_of_the_content():
    matched = match_colours(STYLE, CONTENT).reshape(-1, 3)
    wanted = CONTENT.reshape(-1, 3)
    np.testing.assert_allclose(matched.mean(0), wanted.mean(0), atol=0.2)
    np.testing.assert_allclose(np.cov(matched.T), np.cov(wanted.T), atol=2)
    # A picture of one colour takes the mean.
    flat = match_colours(np.full((4, 4, 3), 7, np.uint8), CONTENT)
    np.testing.assert_allclose(flat.mean((0, 1)), wanted.mean(0), atol=0.6)


def test_luminance_and_colours_are_those_of_yiq():
    styled = np.uint8(RNG.integers(60, 190, CONTENT.shape))
    both = with_colours_of(styled, CONTENT)
    found, colours, light = (
        np.array([colorsys.rgb_to_yiq(*pixel) for pixel in picture.reshape(-1, 3) / 255.0])
        for picture in (both, CONTENT, styled)
    )
    inside = ((both > 0) & (both < 255)).all(-1).reshape(-1)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(found[inside, 0], light[inside, 0], atol=0.01)
    np.testing.assert_allclose(found[inside, 1:], colours[inside, 1:], atol=0.02)


def test_grey_pictures_have_the_luminance_of_another():
    levels = grey(STYLE, CONTENT)
    np.testing.assert_array_equal(levels[..., 0], levels[..., 2])
    expected = grey(CONTENT)
    assert abs(levels.mean() - expected.mean()) < 0.6
    assert abs(levels.std() - expected.std()) < 0.6
