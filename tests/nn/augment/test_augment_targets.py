"""Boxes and landmarks follow what they mark."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.nn import augment

H, W, B = 40, 56, 24
warp_boxes = jax.jit(augment.warp_boxes, static_argnames=("height", "width"))
warp_landmarks = jax.jit(augment.warp_landmarks, static_argnames=("height", "width", "pairs"))
GEOMETRY = [
    "flip",
    "crop:10",
    "rotate:20",
    "affine:15:0.2:0.2:0.2",
    "resized_crop:0.3",
    "flip,rotate:20,resized_crop:0.4,crop:4",
]


def geometries(*default):
    """Runs a test on each geometry, by default on some only."""
    slow = [text for text in GEOMETRY if text not in default]
    cases = [*default, *(pytest.param(text, marks=pytest.mark.slow) for text in slow)]
    return pytest.mark.parametrize("text", cases)


def shift(y, x):
    """Returns a map that shows the input's point (y, x) at (0, 0) of the result."""
    return jnp.array([[[1.0, 0, y], [0, 1, x], [0, 0, 1]]])


@geometries("flip", "rotate:20", "flip,rotate:20,resized_crop:0.4,crop:4")
def test_boxes_follow_the_pixels(text):
    rng = np.random.default_rng(0)
    start = rng.integers(0, [25, 40], (B, 2))
    stop = start + rng.integers(8, 15, (B, 2))
    images = np.zeros((B, H, W, 1), np.uint8)
    for image, (top, left), (bottom, right) in zip(images, start, stop, strict=True):
        image[top:bottom, left:right] = 255
    batch = {
        "image": jnp.asarray(images),
        "boxes": jnp.asarray(np.concatenate([start, stop], 1)[:, None], jnp.float32),
        "boxes_mask": jnp.ones((B, 1), bool),
    }
    candidates = {f"candidates{end}": batch[f"boxes{end}"] for end in ("", "_mask")}
    run = jax.jit(augment.augmentation(text, least_visible=0.0))
    new = jax.tree.map(np.asarray, run(jax.random.key(1), batch | candidates))
    for end in ("", "_mask"):
        np.testing.assert_array_equal(new[f"candidates{end}"], new[f"boxes{end}"])
    followed = 0
    for image, box, real in zip(
        new["image"][..., 0], new["boxes"][:, 0], new["boxes_mask"][:, 0], strict=True
    ):
        white = np.argwhere(image > 127)
        if len(white) == 0 or not real:
            continue
        # Clipping a corner leaves a bounding box that is larger than the visible part.
        inside = (box > 0.01).all() and box[2] < H - 0.01 and box[3] < W - 0.01
        if inside or text in ("flip", "crop:10", "resized_crop:0.3"):
            expected = [*white.min(0), *(white.max(0) + 1)]
            np.testing.assert_allclose(box, expected, rtol=0, atol=1.01)
            followed += 1
    assert followed >= B // 3


@geometries("resized_crop:0.3", "flip,rotate:20,resized_crop:0.4,crop:4")
def test_landmarks_follow_a_bright_dot(text):
    rng = np.random.default_rng(1)
    places = rng.integers(2, [H - 2, W - 2], (B, 2))
    images = np.zeros((B, H, W, 1), np.float32)
    for image, (row, column) in zip(images, places, strict=True):
        image[row - 1 : row + 2, column - 1 : column + 2] = 255
    batch = {
        "image": jnp.asarray(images),
        "landmarks": jnp.asarray(places[:, None] + 0.5, jnp.float32),
        "landmarks_mask": jnp.ones((B, 1), jnp.float32),
    }
    new = jax.tree.map(np.asarray, jax.jit(augment.augmentation(text))(jax.random.key(2), batch))
    followed = 0
    for image, point, visible in zip(
        new["image"][..., 0],
        new["landmarks"][:, 0],
        new["landmarks_mask"][:, 0],
        strict=True,
    ):
        margin = min(*point, H - point[0], W - point[1])
        assert visible == (margin >= 0)
        if margin > 4:
            mass = image / image.sum()
            seen = [(mass.sum(1) * (np.arange(H) + 0.5)).sum()]
            seen.append((mass.sum(0) * (np.arange(W) + 0.5)).sum())
            np.testing.assert_allclose(point, seen, rtol=0, atol=0.25)
            followed += 1
        elif margin < -4:
            assert image.max() == 0
    assert followed >= B // 4


def test_boxes_are_clipped_and_vanish_when_little_is_left():
    """Each box is 4 x 10; the shift leaves 10, 6 and 2 of its columns inside; the last is none."""
    boxes = jnp.array([[[2.0, 8, 6, 18], [2, 4, 6, 14], [2, 0, 6, 10], [2, 12, 6, 22]]])
    mask = jnp.array([[1, 1, 1, 0]], jnp.int32)
    move = {"maps": shift(1.0, 8.0), "height": 20, "width": 20}
    found, kept = warp_boxes(boxes, mask, **move, least_visible=0.2)
    expected = np.array([[[1.0, 0, 5, 10], [1, 0, 5, 6], [1, 0, 5, 2], [0, 0, 0, 0]]])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(kept, [[1, 1, 1, 0]])
    assert kept.dtype == jnp.int32
    found, kept = warp_boxes(boxes, mask, **move, least_visible=0.21)
    expected[0, 2] = 0
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(kept, [[1, 1, 0, 0]])
    # Nothing is left of the third box, so it vanishes at any threshold.
    _, kept = warp_boxes(boxes, mask, shift(0.0, 10.0), height=20, width=20, least_visible=0.0)
    np.testing.assert_array_equal(kept, [[1, 1, 0, 0]])


def test_a_turned_box_becomes_the_bounding_box_of_its_corners():
    angle = np.deg2rad(30)
    turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    to_input = np.eye(3)
    to_input[:2, :2] = turn
    to_input[:2, 2] = [3, -4]
    box = np.array([30.0, 20, 36, 28])
    corners = [np.linalg.solve(to_input, [y, x, 1])[:2] for y in box[::2] for x in box[1::2]]
    found, kept = warp_boxes(
        jnp.asarray(box, jnp.float32).reshape(1, 1, 4),
        jnp.ones((1, 1), bool),
        jnp.asarray(to_input, jnp.float32)[None],
        height=90,
        width=90,
    )
    expected = [*np.min(corners, 0), *np.max(corners, 0)]
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-5)
    assert kept.all()


def test_flipped_pairs_exchange_their_places():
    points = jnp.array([[[5.0, 10], [6, 20], [7, 30]]] * 2)
    mask = jnp.array([[True, False, True]] * 2)
    mirror = jnp.array([[1.0, 0, 0], [0, -1, 40], [0, 0, 1]])
    found, visible = warp_landmarks(
        points, mask, jnp.stack([mirror, jnp.eye(3)]), height=40, width=40, pairs=((1, 0),)
    )
    np.testing.assert_array_equal(found, [[[6, 20], [5, 30], [7, 10]], [[5, 10], [6, 20], [7, 30]]])
    np.testing.assert_array_equal(visible, [[False, True, True], [True, False, True]])


@pytest.mark.parametrize("pairs", [((0, 3),), ((0, 1), (1, 2)), ((2, 2),), ((-1, 0),)])
def test_pairs_that_do_not_fit_are_refused(pairs):
    with pytest.raises(InputError, match=r"do not fit 3 landmarks; name each of 0..2 at most once"):
        warp_landmarks(
            jnp.zeros((1, 3, 2)), jnp.ones((1, 3)), shift(0.0, 0.0), height=4, width=4, pairs=pairs
        )
