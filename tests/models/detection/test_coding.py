"""Codes of boxes: the papers' formulas at one box, and the way there and back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.models.detection import coding


def boxes(rng, count, side=64.0):
    low = rng.uniform(0, side, (count, 2))
    return jnp.asarray(np.concatenate([low, low + rng.uniform(1, side, (count, 2))], 1), "float32")


def test_formulas_at_one_box():
    # Centres (11, 24) and (10, 20), sides 6 x 8 and 4 x 16.
    box, anchor = jnp.array([8.0, 20, 14, 28]), jnp.array([8.0, 12, 12, 28])
    expected = np.array([1 / 4, 4 / 16, np.log(6 / 4), np.log(8 / 16)])
    deviations = (0.1, 0.1, 0.2, 0.2)
    np.testing.assert_allclose(coding.encode(box, anchor), expected, rtol=1e-6)
    scaled = coding.encode(box, anchor, deviations=deviations)
    np.testing.assert_allclose(scaled, expected / deviations, rtol=1e-6)
    # Row 2, column 3 of cells of 8 pixels: (19, 26) lies 3/8 and 2/8 into it.
    box = jnp.array([16.0, 22, 22, 30])
    code = coding.encode_cells(box, jnp.array([2, 3]), jnp.array([4.0, 16.0]), 8)
    expected = [np.log(3 / 5), np.log(2 / 6), np.log(6 / 4), np.log(8 / 16)]
    np.testing.assert_allclose(code, expected, rtol=1e-5)


@pytest.mark.parametrize("deviations", [coding.UNIT, (0.1, 0.1, 0.2, 0.2)])
def test_there_and_back_relative_to_anchors(deviations):
    rng = np.random.default_rng(0)
    given, anchors = boxes(rng, 50), boxes(rng, 50)
    encode, decode = (
        jax.jit(functools.partial(one, deviations=deviations))
        for one in (coding.encode, coding.decode)
    )
    back = decode(encode(given, anchors), anchors)
    np.testing.assert_allclose(back, given, atol=2e-4)


def test_there_and_back_in_cells():
    rng = np.random.default_rng(0)
    given, shapes = boxes(rng, 50), jnp.asarray(rng.uniform(4, 60, (50, 2)), "float32")
    middle = (given[:, :2] + given[:, 2:]) / 2
    cells = jnp.floor(middle / 8).astype(jnp.int32)
    codes = coding.encode_cells(given, cells, shapes, 8)
    np.testing.assert_allclose(coding.decode_cells(codes, cells, shapes, 8), given, atol=2e-3)
    # Centres at the edge of a cell come back as near as can be told.
    edge = jnp.array([0.0, 4.0, 16.0, 12.0])
    code = coding.encode_cells(edge, jnp.array([1, 1]), shapes[0], 8)
    back = coding.decode_cells(code, jnp.array([1, 1]), shapes[0], 8)
    np.testing.assert_allclose(back, edge, atol=0.01)


def test_wild_codes_and_boxes_without_area_stay_finite():
    anchor = jnp.array([0.0, 0, 10, 10])
    for code in (jnp.full(4, 1e4), jnp.full(4, -1e4)):
        for decode in (
            lambda t: coding.decode(t, anchor),
            lambda t: coding.decode_cells(t, jnp.array([0, 0]), jnp.array([9.0, 9.0]), 8),
        ):
            assert jnp.isfinite(decode(code)).all()
            assert jnp.isfinite(jax.grad(lambda t, decode=decode: decode(t).sum())(code)).all()
    grown = coding.decode(jnp.array([0.0, 0, 99, 99]), anchor)
    np.testing.assert_allclose(grown[2:] - grown[:2], [625, 625], rtol=1e-5)
    empty = jnp.array([5.0, 5, 5, 5])
    assert jnp.isfinite(coding.encode(empty, empty)).all()
    assert jnp.isfinite(coding.encode_cells(empty, jnp.array([0, 0]), anchor[2:], 8)).all()
