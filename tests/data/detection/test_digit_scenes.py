"""The embedded scenes: boxes against the ink in the pixels, and the same bits always."""

import hashlib
import pathlib

import numpy as np
import pytest

from dlcore.boxes import iou, pairwise
from dlcore.data.builders import digit_scenes
from dlcore.data.builders.digit_scenes import (
    SIDE,
    _background,
    _bounds,
    _draw,
    _glyph,
    draw_scene,
)
from dlcore.data.detection import load_detection

SCENES = [draw_scene("train", index) for index in range(60)]


def test_scenes_are_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bits of scenes of made-up digits and photographs; real ones depend on JPEG's reader."""
    rng = np.random.Generator(np.random.Philox(key=5))
    levels = np.clip(rng.integers(-8, 25, (20, 8, 8)), 0, 16)
    photograph = rng.integers(256, size=(427, 640, 3), dtype=np.uint8) // 4 + 90
    parts = {"train": np.arange(10), "test": np.arange(10, 20)}
    monkeypatch.setattr(digit_scenes, "_digits", lambda: (levels, np.arange(20) % 10, parts))
    monkeypatch.setattr(digit_scenes, "_photographs", lambda: (photograph, photograph[::-1]))
    monkeypatch.setattr(digit_scenes, "_glyph", digit_scenes._glyph.__wrapped__)
    digest = hashlib.sha256()
    for index in range(8):
        scene = draw_scene("test", index)
        for part in (scene.image, scene.boxes, scene.corners):
            digest.update(np.ascontiguousarray(part).tobytes())
    assert digest.hexdigest()[:16] == "0a11feedd580135d"
    assert scene.image.tobytes() == draw_scene("test", 7).image.tobytes()


def test_boxes_are_tight_around_the_ink() -> None:
    """Pixels outside of all boxes are the photograph's own; each side has ink along it."""
    for index in range(20):
        rng = np.random.Generator(np.random.Philox(key=[0, index]))
        background = _background("train", rng).astype(int)
        scene = SCENES[index]
        changed = np.abs(scene.image - background).max(-1)
        inside = np.zeros((SIDE, SIDE), bool)
        for box in scene.boxes.astype(int):
            top, left, bottom, right = box
            inside[top:bottom, left:right] = True
            for edge in (
                changed[top, left:right],
                changed[bottom - 1, left:right],
                changed[top:bottom, left],
                changed[top:bottom, right - 1],
            ):
                assert edge.max() > 30
        # What lies beyond is less than half of the ink's colour.
        assert changed[~inside].max(initial=0) < 130
        assert (changed[~inside] > 8).mean() < 0.05


def test_a_box_is_that_of_the_pixels_with_half_of_the_colour() -> None:
    rng = np.random.default_rng(0)
    drawn = [new for _ in range(60) if (new := _draw(_glyph(int(rng.integers(1797))), rng))]
    assert len(drawn) > 20
    for new in drawn:
        rows, columns = np.nonzero(new.ink >= 0.5)
        expected = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
        assert new.box.tolist() == expected
        # The box around the frame holds that of the ink; turning by 15 degrees leaves it less room
        # than a quarter of the frame's other side.
        low, high = new.corners.min(0), new.corners.max(0)
        room = 0.26 * np.linalg.norm(new.corners[0] - new.corners[2])
        assert (new.box[:2] > low - 1.01).all() and (new.box[2:] < high + 1.01).all()
        assert (new.box[:2] < low + room + 1).all() and (new.box[2:] > high - room - 1).all()


def test_a_frame_is_tight_around_the_ink_of_the_digit() -> None:
    glyph = _glyph(0)
    assert glyph.frame == _bounds(glyph.ink)
    top, left, bottom, right = map(int, glyph.frame)
    assert (glyph.ink[:top] < 0.5).all() and (glyph.ink[top] >= 0.5).any()
    assert (glyph.ink[:, right:] < 0.5).all() and (glyph.ink[bottom - 1] >= 0.5).any()


def test_scenes_hold_what_they_promise() -> None:
    counts = [len(scene.labels) for scene in SCENES]
    assert min(counts) == 0 and max(counts) == 6
    assert {label for scene in SCENES for label in scene.labels} == {*range(10)}
    for scene in SCENES:
        overlap = pairwise(iou, scene.boxes, scene.boxes) - np.eye(len(scene.boxes))
        assert overlap.max(initial=0) <= 0.15
        assert scene.boxes.min(initial=0) >= 0 and scene.boxes.max(initial=0) <= SIDE
        assert scene.corners.min(initial=0) >= 0 and scene.corners.max(initial=0) <= SIDE
        for corners in scene.corners:
            top_left, top_right, bottom_right, bottom_left = corners
            down, across = bottom_left - top_left, top_right - top_left
            # A rectangle, turned by at most 15 degrees, with its top above and its left at left.
            np.testing.assert_allclose(top_left + down + across, bottom_right)
            assert abs(down @ across) < 1e-9
            assert 14 - 1e-9 <= max(np.hypot(*down), np.hypot(*across)) <= 40 + 1e-9
            assert abs(np.degrees(np.arctan2(across[0], across[1]))) <= 15


def test_parts_share_no_digit_and_no_place() -> None:
    _, _, parts = digit_scenes._digits()
    assert not {*parts["train"]} & {*parts["test"]}
    for photograph in digit_scenes._photographs():
        assert photograph.shape == (427, 640, 3)
    # The test's columns are marked: no scene to train on may show them, each of the test must.
    marked = []
    for photograph in digit_scenes._photographs():
        copy = np.zeros_like(photograph)
        copy[:, -digit_scenes._TEST_COLUMNS :] = 255
        marked.append(copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digit_scenes, "_photographs", lambda: tuple(marked))
        for seed in range(40):
            rng = np.random.default_rng(seed)
            assert _background("train", rng).max() == 0
            assert _background("test", rng).min() > 100


def test_the_data_set(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digit_scenes, "SIZES", {"train": 5, "test": 3})
    data = load_detection(data_dir=tmp_path)
    assert data.name == "digit_scenes/several/1.0.0"
    assert data.image_shape == (SIDE, SIDE, 3)
    assert data.landmark_names == digit_scenes.LANDMARKS and data.landmark_pairs == ((0, 1), (3, 2))
    batch = data.train.gather(np.arange(5))
    scenes = [draw_scene("train", index) for index in range(5)]
    for row, image in enumerate(batch["image"]):
        # TFDS shuffles what it stores.
        (scene,) = [scene for scene in scenes if np.array_equal(scene.image, image)]
        mask = batch["boxes_mask"][row]
        assert mask.sum() == len(scene.labels)
        np.testing.assert_allclose(batch["boxes"][row][mask], scene.boxes, atol=1e-4)
        np.testing.assert_allclose(batch["landmarks"][row][mask], scene.corners, atol=1e-4)
        assert batch["labels"][row][mask].tolist() == scene.labels
        assert (batch["landmarks_mask"][row] == mask[:, None]).all()
    one = load_detection("digit_scenes/one", data_dir=tmp_path)
    assert one.train.gather(np.arange(5))["boxes_mask"].tolist() == [[True]] * 5
