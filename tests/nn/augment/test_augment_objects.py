"""Augmentation for detection: crops that keep an object, mosaics of four, landmarks of boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore import runtime
from dlcore.boxes import area, intersection
from dlcore.errors import InputError
from dlcore.nn.augment import augmentation, geometry, warp_landmarks
from dlcore.nn.augment.mixing import partners
from dlcore.nn.augment.mosaic import mosaic
from dlcore.parallel import positions
from dlcore.train import gradient_step
from dlcore.types import Aux, Mean, TrainState

B, S, N = 8, 32, 2
RNG = np.random.default_rng(0)


def scenes(count=B):
    """Dark images with one bright rectangle each, its box, and its corners as landmarks."""
    start = RNG.integers(2, 14, (count, 2))
    stop = start + RNG.integers(8, 16, (count, 2))
    images = np.zeros((count, S, S, 1), np.float32)
    for number, (image, (top, left), (bottom, right)) in enumerate(
        zip(images, start, stop, strict=True)
    ):
        image[top:bottom, left:right] = 100 + 10 * number
    boxes = np.zeros((count, N, 4), np.float32)
    boxes[:, 0] = np.concatenate([start, stop], 1)
    landmarks = np.zeros((count, N, 2, 2), np.float32)
    landmarks[:, 0] = np.stack([start, stop], 1)
    mask = np.tile([True, False], (count, 1))
    return {
        "image": images,
        "boxes": boxes,
        "boxes_mask": mask,
        "labels": np.tile(np.arange(count, dtype=np.int32)[:, None], (1, N)),
        "difficult": np.tile(np.arange(count)[:, None] % 2 == 1, (1, N)),
        "landmarks": landmarks,
        "landmarks_mask": np.repeat(mask[..., None], 2, -1),
        "weight": np.ones(count, np.float32),
    }


BATCH = scenes()


def run(text, batch=BATCH, key=0, **options):
    new = jax.jit(augmentation(text, **options))(jax.random.key(key), batch)
    return jax.tree.map(np.asarray, new)


def test_landmarks_of_boxes_go_the_way_of_those_of_images():
    points = RNG.uniform(0, S, (3, 4, 2, 2)).astype(np.float32)
    mask = RNG.random((3, 4, 2)) < 0.7
    maps = jnp.stack([geometry.rotate(jax.random.key(k), S, S) for k in range(2)] + [jnp.eye(3)])
    maps = maps.at[2, 1].set(jnp.array([0.0, -1, S]))  # a mirror
    size = {"height": S, "width": S, "pairs": ((0, 1),)}
    found, seen = warp_landmarks(points, mask, maps, **size)
    for n in range(4):
        expected = warp_landmarks(points[:, n], mask[:, n], maps, **size)
        np.testing.assert_allclose(found[:, n], expected[0], rtol=1e-6)
        np.testing.assert_array_equal(seen[:, n], expected[1])


def test_landmarks_vanish_with_their_box():
    batch = {**BATCH, "boxes": np.tile(np.float32([3, 3, 7, 7]), (B, N, 1))}
    batch["landmarks"] = np.full_like(BATCH["landmarks"], 16)  # in the middle of the image
    new = run("crop:6", batch, least_visible=1.0)
    gone = ~new["boxes_mask"][:, 0]
    assert gone.any() and not gone.all()
    np.testing.assert_array_equal(new["landmarks_mask"][:, 0], np.repeat(~gone[:, None], 2, 1))


def crops(boxes, mask, count=400, **options):
    """The rectangles that `object_crop` cuts out."""
    keys = jax.random.split(jax.random.key(1), count)
    cut = jax.jit(jax.vmap(lambda key: geometry.object_crop(key, S, 2 * S, boxes, mask, **options)))
    maps = np.asarray(cut(keys))
    ends = np.array([[0, 0, 1], [S, 2 * S, 1]])
    corners = np.einsum("kij,ej->kei", maps, ends)[..., :2]
    return corners.reshape(count, 4)


def test_crops_keep_the_share_of_an_object():
    boxes = jnp.array([[4.0, 4, 12, 12], [20, 50, 30, 62], [0, 0, S, 2 * S]])
    found = crops(boxes, jnp.array([True, True, False]), visible=0.7, smallest=0.1)
    shares = np.stack(
        [intersection(found, np.asarray(box)) / area(np.asarray(box)) for box in boxes[:2]]
    )
    assert (shares.max(0) >= 0.7 - 1e-5).all()
    # Both objects are chosen, and what is not chosen may be lost.
    assert (shares[0] < 0.7).sum() > 50 and (shares[1] < 0.7).sum() > 50
    assert (found[:, :2] >= -1e-4).all() and (found[:, 2:] <= [S + 1e-3, 2 * S + 1e-3]).all()
    whole = (area(found) > 0.999 * S * 2 * S).mean()
    assert whole < 0.15
    assert np.quantile(area(found), 0.1) < 0.4 * S * 2 * S


def test_an_image_without_an_object_is_cropped_anywhere():
    found = crops(jnp.zeros((2, 4)), jnp.zeros(2, bool), smallest=0.2)
    assert (area(found) < 0.9 * S * 2 * S).mean() > 0.7
    assert np.isfinite(found).all()


def test_what_no_crop_can_keep_leaves_the_image_whole():
    found = crops(jnp.array([[0.0, 0, S, 2 * S]]), jnp.array([True]), visible=1.0, smallest=0.2)
    np.testing.assert_array_equal(found, np.tile([0, 0, S, 2 * S], (400, 1)))


def test_a_crop_sees_the_boxes_as_the_maps_before_it_leave_them():
    """After a flip the object is on the other side, and crops around it keep it."""
    batch = {**BATCH, "boxes": np.tile(np.float32([1, 1, 7, 7]), (B, N, 1))}
    many = jax.tree.map(lambda leaf: np.repeat(leaf, 10, 0), batch)
    new = run("flip:1,object_crop:0.1:1.5:0.9", many, least_visible=0.89)
    assert new["boxes_mask"][:, 0].all()


def test_boxes_of_crops_and_mosaics_follow_the_pixels():
    new = run("object_crop:0.3,mosaic", least_visible=0.0)
    followed = 0
    for image, boxes, mask, labels, landmarks, seen in zip(
        new["image"][..., 0],
        new["boxes"],
        new["boxes_mask"],
        new["labels"],
        new["landmarks"],
        new["landmarks_mask"],
        strict=True,
    ):
        for box, real, label, points, visible in zip(
            boxes, mask, labels, landmarks, seen, strict=True
        ):
            if not real or (box[2:] - box[:2]).min() < 5:
                continue
            inner = np.round(box).astype(int) + [2, 2, -2, -2]
            # Each object has a brightness of its own, of which its label is the number.
            values = image[inner[0] : inner[2], inner[1] : inner[3]]
            np.testing.assert_allclose(values, 100 + 10 * label, atol=1e-3)
            outer = np.clip(np.round(box).astype(int) + [-2, -2, 2, 2], 0, S)
            around = image[outer[0] : outer[2], outer[1] : outer[3]]
            assert (np.abs(around - (100 + 10 * label)) < 1).sum() <= (area(box) + 4) * 1.6
            for point, corner, there in zip(points, box.reshape(2, 2), visible, strict=True):
                if there:
                    np.testing.assert_allclose(point, corner, atol=1e-3)
            followed += 1
    assert followed >= B


def mosaics(batch=BATCH, **options):
    keys = jax.random.split(jax.random.key(2), len(batch["image"]))
    made = jax.jit(lambda keys, batch: mosaic(keys, batch, **options))
    return jax.tree.map(np.asarray, made(keys, jax.tree.map(jnp.asarray, batch)))


def test_four_whole_images_at_half_the_size():
    new = mosaics(zoom=0.5)
    for i in range(B):
        for quarter in range(4):
            p = (i + quarter * B // 4) % B
            down, right = S // 2 * np.array([quarter // 2, quarter % 2])
            tile = new["image"][i, down : down + S // 2, right : right + S // 2]
            means = BATCH["image"][p].reshape(S // 2, 2, S // 2, 2, 1).mean((1, 3))
            np.testing.assert_allclose(tile, means, rtol=0, atol=1e-3)
            box = BATCH["boxes"][p, 0] / 2 + [down, right, down, right]
            at = quarter * N
            np.testing.assert_allclose(new["boxes"][i, at], box, rtol=0, atol=1e-4)
            assert new["labels"][i, at] == p and new["difficult"][i, at] == (p % 2 == 1)
            points = BATCH["landmarks"][p, 0] / 2 + [down, right]
            np.testing.assert_allclose(new["landmarks"][i, at], points, rtol=0, atol=1e-4)
    assert new["boxes_mask"].tolist() == [[True, False] * 4] * B
    assert new["landmarks_mask"].shape == (B, 4 * N, 2) and "weight" in new


def test_mosaics_leave_no_gap_and_meet_anywhere():
    batch = {**BATCH, "image": np.ones((B, S, S, 1), np.float32)}
    batch["image"] *= np.arange(1, B + 1).reshape(-1, 1, 1, 1)
    new = mosaics(batch, zoom=0.9)["image"][..., 0]
    heights = set()
    for i, image in enumerate(new):
        corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
        np.testing.assert_allclose(corners, [(i + k * B // 4) % B + 1 for k in range(4)], rtol=1e-5)
        # Nothing but the four images: every pixel has the value of one of them.
        assert np.isin(image.round(4), corners.round(4)).all()
        heights.add((np.abs(image[:, 0] - corners[0]) < 1e-3).sum())
    assert len(heights) > 3


def test_boxes_that_are_cut_too_much_become_padding():
    batch = {**BATCH, "boxes": np.tile(np.float32([0, 0, S, S]), (B, N, 1))}
    all_of_them = mosaics(batch, zoom=0.9, least_visible=0.0)
    some = mosaics(batch, zoom=0.9, least_visible=0.5)
    shown = area(all_of_them["boxes"][:, ::N])
    assert all_of_them["boxes_mask"][:, ::N].all()
    np.testing.assert_allclose(shown.sum(1), np.full(B, S * S), rtol=1e-5)
    kept = some["boxes_mask"][:, ::N]
    assert kept.any() and not kept.all()
    assert shown[kept].min() > shown[~kept].max() * 0.5
    assert (some["boxes"][~some["boxes_mask"]] == 0).all()


def test_an_example_without_its_four_stays_as_it_is():
    for new in (
        mosaics(probability=0.0),
        mosaics({**BATCH, "weight": np.float32([1] * (B - 2) + [0] * 2)}),
    ):
        # Rows 6 and 7 are partners of all others: 0, 2, 4, 6 and 1, 3, 5, 7 belong together.
        np.testing.assert_array_equal(new["image"][:6], BATCH["image"][:6])
        np.testing.assert_array_equal(new["boxes"][:6, :N], BATCH["boxes"][:6])
        np.testing.assert_array_equal(new["labels"][:6, :N], BATCH["labels"][:6])
        assert not new["boxes_mask"][:6, N:].any()


def test_mosaics_are_as_frequent_as_said():
    many = jax.tree.map(lambda leaf: np.tile(leaf, (100, *(1,) * (leaf.ndim - 1))), BATCH)
    new = mosaics(many, probability=0.3)
    made = new["boxes_mask"][:, N:].any(1).mean()
    assert 0.22 < made < 0.38


def test_partners_lie_quarters_of_the_batch_away():
    assert partners(jnp.arange(8), 1, 4).tolist() == [2, 3, 4, 5, 6, 7, 0, 1]
    assert partners(jnp.arange(8), 3, 4).tolist() == [6, 7, 0, 1, 2, 3, 4, 5]
    assert partners(jnp.arange(8), 0, 4).tolist() == [*range(8)]


def test_what_cannot_be_done_is_refused():
    plain = {"image": BATCH["image"]}
    with pytest.raises(InputError, match="augmentation 'object_crop' needs boxes"):
        run("object_crop", plain)
    with pytest.raises(InputError, match="mosaic .* has no rule for examples without them"):
        run("mosaic", plain)
    with pytest.raises(InputError, match=r"mosaic .* has no rule for \['label'\]"):
        run("mosaic", {**BATCH, "label": np.zeros(B, np.int32)})
    with pytest.raises(InputError, match=r"has no rule for \['landmarks'\]"):
        run(
            "mosaic", {**BATCH, "landmarks": np.zeros((B, 2, 2)), "landmarks_mask": np.ones((B, 2))}
        )
    with pytest.raises(InputError, match="mosaic takes 4 examples .* cannot be done with 6; make"):
        run("mosaic", jax.tree.map(lambda leaf: leaf[:6], BATCH))


def seen_in_training(kind, accumulate):
    """Returns the images and boxes of a step by their position in the batch, as gradients."""
    layout = runtime.layout(kind)
    augment = augmentation("object_crop,mosaic")
    batch = {name: BATCH[name] for name in ("image", "boxes", "boxes_mask", "labels", "weight")}
    count = 16
    batch = jax.tree.map(lambda leaf: np.tile(leaf, (2, *(1,) * (leaf.ndim - 1))), batch)

    def loss_fn(params, model_state, batch, rng):
        new = augment(rng, batch)
        here = positions(len(new["image"]))
        each = (params["image"][here] * new["image"]).sum() + (
            params["boxes"][here] * new["boxes"]
        ).sum()
        return Mean(each, jnp.float32(len(here) / count)), Aux(model_state, {})

    tx = optax.sgd(1.0)
    step = gradient_step(loss_fn, tx, accumulate=accumulate)
    params = {"image": jnp.zeros((count, S, S, 1)), "boxes": jnp.zeros((count, 4 * N, 4))}
    state = layout.initialise(lambda: TrainState.create({"params": params}, tx, jax.random.key(7)))
    state, _ = runtime.compile_step(step, layout)(state, batch)
    return jax.tree.map(lambda leaf: -np.asarray(leaf), state.params)


@pytest.fixture(scope="module")
def reference():
    return seen_in_training("jit", 1)


@pytest.mark.parametrize(
    ("kind", "accumulate"),
    [
        pytest.param("jit", 4, marks=pytest.mark.slow),
        pytest.param("pmap", 1, marks=pytest.mark.slow),
        pytest.param("mesh", 2, marks=pytest.mark.slow),
    ],
)
def test_every_layout_sees_the_same_scenes(kind, accumulate, reference):
    found = seen_in_training(kind, accumulate)
    np.testing.assert_allclose(found["boxes"], reference["boxes"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(found["image"], reference["image"], rtol=0, atol=2e-2)
    assert reference["boxes"].max() > 10 and reference["image"].max() > 50
