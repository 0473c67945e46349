"""Boxes: overlaps equal counted pixels and torchvision's, forms come back, gradients are finite."""

import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import boxes
from dlcore.errors import InputError

GOLDEN = np.load(pathlib.Path(__file__).parent / "goldens" / "detection.npz")
# Their names at torchvision.
PEERS = {"giou": "generalized", "diou": "distance", "ciou": "complete"}


def drawn(rng, count, *, side=20):
    """Boxes of whole pixels, many without area."""
    low = rng.integers(0, side, (count, 2))
    return np.concatenate([low, rng.integers(low, side + 1, (count, 2))], -1).astype(np.float32)


def test_iou_of_10000_pairs_equals_counted_pixels():
    rng = np.random.default_rng(0)
    a, b = drawn(rng, 10_000), drawn(rng, 10_000)
    cells = np.arange(20)

    def covered(box):
        rows, columns = (
            (cells >= box[:, k, None]) & (cells < box[:, 2 + k, None]) for k in range(2)
        )
        return rows[:, :, None] & columns[:, None, :]

    both = (covered(a) & covered(b)).sum((1, 2))
    either = (covered(a) | covered(b)).sum((1, 2))
    expected = np.where(either > 0, both / np.maximum(either, 1), 0).astype(np.float32)
    assert (both == 0).any() and (either == 0).any() and (both == either).any()
    for xp in (np, jnp):
        np.testing.assert_allclose(boxes.iou(xp.asarray(a), xp.asarray(b)), expected, rtol=1e-6)
        np.testing.assert_array_equal(boxes.area(xp.asarray(a)), covered(a).sum((1, 2)))


@pytest.mark.parametrize("given, wanted", [*itertools.permutations(boxes.FORMS, 2)])
def test_forms_come_back(given, wanted):
    rng = np.random.default_rng(0)
    # Even sides have centres at whole pixels, so that everything is exact.
    corners = 2 * drawn(rng, 30)
    start = boxes.convert(corners, "corners", given)
    there = boxes.convert(start, given, wanted)
    np.testing.assert_array_equal(boxes.convert(there, wanted, given), start)
    np.testing.assert_array_equal(boxes.convert(there, wanted, "corners"), corners)


def test_each_form_at_one_box():
    expected = {
        "corners": [10, 20, 16, 40],
        "corners_xy": [20, 10, 40, 16],
        "corner_size": [20, 10, 20, 6],
        "centre": [30, 13, 6, 20],
        "centre_size": [30, 13, 20, 6],
    }
    assert set(expected) == set(boxes.FORMS)
    corners = np.array(expected["corners"], np.float32)
    for xp in (np, jnp):
        for form, values in expected.items():
            assert boxes.convert(xp.asarray(corners), "corners", form).tolist() == values
    with pytest.raises(InputError, match="unknown form of boxes 'xyxy'; choose one of: centre"):
        boxes.convert(corners, "xyxy", "corners")


def test_shares_of_the_picture_and_clipping():
    box = np.array([[-5.0, 10, 30, 90]])
    clipped = boxes.clip(box, 20, 80)
    assert clipped.tolist() == [[0, 10, 20, 80]]
    assert boxes.relative(clipped, 20, 80).tolist() == [[0, 0.125, 1, 1]]
    np.testing.assert_array_equal(boxes.absolute(boxes.relative(clipped, 20, 80), 20, 80), clipped)


@pytest.mark.parametrize("name", ["iou", *PEERS])
def test_overlaps_equal_torchvision(name):
    a, b = GOLDEN["boxes/a"], GOLDEN["boxes/b"]
    expected = GOLDEN[f"boxes/{PEERS.get(name, name)}"]
    for xp in (np, jnp):
        actual = boxes.pairwise(boxes.OVERLAPS[name], xp.asarray(a), xp.asarray(b))
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PEERS)
def test_losses_have_torchvision_s_gradients(name):
    a, b = jnp.asarray(GOLDEN["boxes/a"]), jnp.asarray(GOLDEN["boxes/b"])
    golden = f"boxes/{PEERS[name]}"
    loss, slope = jax.value_and_grad(lambda a: (1 - boxes.OVERLAPS[name](a, b)).sum())(a)
    np.testing.assert_allclose(loss, GOLDEN[f"{golden}/loss"].sum(), rtol=1e-5)
    np.testing.assert_allclose(slope, GOLDEN[f"{golden}/slope"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", boxes.OVERLAPS)
def test_boxes_without_area_have_finite_overlaps_and_gradients(name):
    point, line, flat, square = (
        [5.0, 5, 5, 5], [5.0, 2, 5, 9], [1.0, 5, 8, 5], [0.0, 0, 10, 10],
    )  # fmt: skip
    all_ = jnp.array([point, line, flat, square, [8.0, 8, 2, 2], [0.0, 0, 1e4, 1e-6]])
    overlap = boxes.OVERLAPS[name]
    values = jax.jit(functools.partial(boxes.pairwise, overlap))(all_, all_)
    assert jnp.isfinite(values).all()
    np.testing.assert_allclose(
        values, boxes.pairwise(overlap, np.asarray(all_), np.asarray(all_)), atol=1e-6
    )
    pairs = jax.jit(jax.vmap(jax.vmap(jax.grad(overlap, (0, 1)), (None, 0)), (0, None)))
    for slope in pairs(all_, all_):
        assert jnp.isfinite(slope).all()
    assert values[0, 0] <= 0 and values[3, 3] == pytest.approx(1)


@pytest.mark.parametrize("height, width", [(50, 100), (97, 31), (1, 1), (3, 1000), (64, 64)])
def test_letterbox_there_and_back(height, width):
    way = boxes.Letterbox.fit(height, width, 96)
    whole = np.array([[0.0, 0, height, width]], np.float32)
    rows, columns = way.size
    expected = [way.top, way.left, way.top + rows, way.left + columns]
    np.testing.assert_allclose(way.to_square(whole)[0], expected, rtol=1e-6)
    # The longer side fills the square and the border is shared out.
    assert max(rows, columns) == 96 and 0 <= 96 - rows - 2 * way.top <= 1
    assert 0 <= 96 - columns - 2 * way.left <= 1
    given = np.random.default_rng(0).uniform(0, 1, (2, 5, 4)).astype(np.float32) * max(whole[0])
    for xp in (np, jnp):
        there = way.to_square(xp.asarray(given))
        np.testing.assert_allclose(way.to_picture(there), given, atol=1e-6 * max(height, width, 96))
    # A point is half a box.
    np.testing.assert_allclose(way.to_square(given[..., :2]), way.to_square(given)[..., :2])


def test_letterbox_of_nothing_is_one_line():
    with pytest.raises(InputError, match="a picture of 0 x 5 does not fit into a square of side 9"):
        boxes.Letterbox.fit(0, 5, 9)
