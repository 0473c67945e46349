"""Fast R-CNN and a pyramid of features against plain loops and torchvision."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import boxes as geometry
from dlcore.models.detection import coding, fast_rcnn
from dlcore.models.detection.body import make_body
from dlcore.models.detection.detector import Decoding
from dlcore.models.detection.pyramid import Pyramid, level_of
from dlcore.nn.regions import roi_align

GOLDEN = pathlib.Path(__file__).parents[2] / "goldens" / "detection.npz"


def random_boxes(rng, *shape, side=32.0):
    low = rng.uniform(0, 0.6 * side, (*shape, 2))
    return np.concatenate([low, low + rng.uniform(4, 0.4 * side, (*shape, 2))], -1).astype("f4")


def batch_of(rng, pictures=3, objects=4):
    batch = {
        "boxes": random_boxes(rng, pictures, objects),
        "boxes_mask": np.ones((pictures, objects), bool),
        "labels": rng.integers(0, 3, (pictures, objects)).astype(np.int32),
        "crowd": np.zeros((pictures, objects), bool),
        "difficult": np.zeros((pictures, objects), bool),
    }
    batch["boxes_mask"][1] = False  # a picture without an object
    batch["boxes_mask"][2, 2:] = False
    batch["crowd"][0, 0] = batch["difficult"][0, 1] = True
    return batch


def plain_smooth_l1(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def test_losses_are_those_of_a_loop_over_regions():
    rng = np.random.default_rng(0)
    logits, codes = rng.normal(size=(2, 5, 4)), 2 * rng.normal(size=(2, 5, 3, 4))
    labels, targets = rng.integers(0, 4, (2, 5)), rng.normal(size=(2, 5, 4))
    mask = np.array([[True] * 5, [True, False, True, False, False]])
    labels[0, 0], labels[1, :2] = 3, [1, 0]
    found = fast_rcnn.region_losses(
        fast_rcnn.RegionOutputs(*(jnp.asarray(x, jnp.float32) for x in (logits, codes))),
        fast_rcnn.RegionTargets(
            jnp.zeros((2, 5, 4)),
            jnp.asarray(labels, jnp.int32),
            jnp.asarray(targets, jnp.float32),
            jnp.asarray(mask),
        ),
    )
    for picture in range(2):
        classes = places = 0.0
        for region in np.flatnonzero(mask[picture]):
            said, label = logits[picture, region], labels[picture, region]
            classes -= said[label] - np.log(np.exp(said).sum())
            if label < 3:
                wrong = codes[picture, region, label] - targets[picture, region]
                places += sum(map(plain_smooth_l1, wrong))
        count = mask[picture].sum()
        np.testing.assert_allclose(found["class"][picture], classes / count, rtol=1e-5)
        np.testing.assert_allclose(found["place"][picture], places / count, rtol=1e-5)


def test_losses_are_those_of_torchvision():
    with np.load(GOLDEN) as file:
        golden = dict(file)
    logits, codes, labels, targets = (
        jnp.asarray(golden[f"regions/{name}"])[None]
        for name in ("logits", "codes", "labels", "targets")
    )
    # Its smooth L1 loss turns at 1 / 9, which is ours of nine times the codes.
    found = jax.jit(fast_rcnn.region_losses)(
        fast_rcnn.RegionOutputs(logits, 9 * codes),
        fast_rcnn.RegionTargets(
            targets, labels.astype(jnp.int32), 9 * targets, jnp.ones(labels.shape, bool)
        ),
    )
    losses = jnp.stack([found["class"][0], found["place"][0] / 9])
    np.testing.assert_allclose(losses, golden["regions/losses"], rtol=1e-5)


def test_codes_are_those_of_torchvision():
    with np.load(GOLDEN) as file:
        golden = dict(file)
    anchors = jnp.asarray(golden["rpn/anchors"])
    codes = coding.encode(jnp.roll(anchors, 1, 0), anchors, deviations=fast_rcnn.DEVIATIONS)
    np.testing.assert_allclose(codes, golden["coder/codes"], rtol=1e-4, atol=1e-5)
    boxes = coding.decode(golden["coder/given"], anchors, deviations=fast_rcnn.DEVIATIONS)
    np.testing.assert_allclose(boxes, golden["coder/boxes"], rtol=1e-4, atol=1e-4)


def test_targets_hold_the_rules_of_the_paper():
    """A quarter of the regions holds objects, the others have an IoU from 0.1 to 0.5 with one."""
    rng = np.random.default_rng(1)
    batch = batch_of(rng)
    near = batch["boxes"][:, :, None] + rng.normal(0, 2, (3, 4, 12, 4))
    boxes = np.concatenate([near.reshape(3, -1, 4), random_boxes(rng, 3, 40)], 1).astype("f4")
    mask = rng.random((3, boxes.shape[1])) < 0.9
    sampling = fast_rcnn.Sampling(count=24)
    targets = jax.jit(fast_rcnn.region_targets, static_argnums=(4, 5))(
        jax.random.key(0), boxes, mask, batch, 3, sampling
    )
    kinds = set()
    for picture in range(3):
        ignored = batch["crowd"][picture] | batch["difficult"][picture]
        real = batch["boxes_mask"][picture] & ~ignored
        objects = batch["boxes"][picture]
        possible = [*boxes[picture][mask[picture]].tolist(), *objects[real].tolist()]
        labels = targets.labels[picture]
        assert ((labels < 3) & targets.mask[picture]).sum() <= 6
        for box, label, code, there in zip(
            targets.boxes[picture],
            labels,
            targets.codes[picture],
            targets.mask[picture],
            strict=True,
        ):
            if not there:
                continue
            assert box.tolist() in possible
            possible.remove(box.tolist())  # each one once
            overlap = np.where(real, geometry.iou(np.asarray(box), objects), 0)
            best = overlap.argmax()
            if label < 3:
                assert overlap[best] >= 0.5 and label == batch["labels"][picture][best]
                back = coding.decode(code, box, deviations=fast_rcnn.DEVIATIONS)
                np.testing.assert_allclose(back, objects[best], atol=1e-3)
            else:
                assert overlap[best] < 0.5 and (overlap[best] >= 0.1 or not real.any())
                inside = geometry.intersection(np.asarray(box), objects[ignored])
                assert (inside < 0.5 * geometry.area(np.asarray(box))).all()
            kinds.add((picture, int(label) < 3))
    # The picture without an object has background alone.
    assert kinds == {(0, True), (0, False), (1, False), (2, True), (2, False)}


def test_detections_are_those_of_a_loop():
    rng = np.random.default_rng(2)
    boxes, mask = random_boxes(rng, 1, 6), np.array([[True] * 5 + [False]])
    boxes[0, 3:5] = boxes[0, :2] + 0.5
    logits, codes = rng.normal(size=(1, 6, 3)), 0.5 * rng.normal(size=(1, 6, 2, 4))
    outputs = fast_rcnn.RegionOutputs(
        jnp.asarray(logits, jnp.float32), jnp.asarray(codes, jnp.float32)
    )
    found = fast_rcnn.decode_regions(
        outputs, jnp.asarray(boxes), jnp.asarray(mask), 32, Decoding(0.2, 0.4, most=20)
    )
    left = []
    for region in range(5):
        scores = np.exp(logits[0, region]) / np.exp(logits[0, region]).sum()
        for label in range(2):
            y, x, height, width = codes[0, region, label] * [0.1, 0.1, 0.2, 0.2]
            y_min, x_min, y_max, x_max = boxes[0, region]
            old = y_max - y_min, x_max - x_min
            middle = (y_min + y_max) / 2 + y * old[0], (x_min + x_max) / 2 + x * old[1]
            new = old[0] * np.exp(height), old[1] * np.exp(width)
            box = np.array(
                [middle[i] + sign * new[i] / 2 for sign in (-1, 1) for i in (0, 1)]
            ).clip(0, 32)
            if scores[label] > 0.2:
                left.append((scores[label], label, box))
    expected = []
    for score, label, box in sorted(left, key=lambda one: -one[0]):
        if all(same != label or geometry.iou(box, one) <= 0.4 for _, same, one in expected):
            expected.append((score, label, box))
    count = int(found.mask.sum())
    assert 1 < count == len(expected) < len(left)
    for at, (score, label, box) in enumerate(expected):
        np.testing.assert_allclose(found.scores[0, at], score, rtol=1e-5)
        assert found.labels[0, at] == label
        np.testing.assert_allclose(found.boxes[0, at], box, rtol=1e-4)


def test_a_box_is_pooled_from_the_level_of_its_size():
    side = 14.0 * np.array([3.9, 4.0, 7.9, 8.0, 15.9, 16.0, 100.0])
    boxes = np.stack([0 * side, 0 * side, side / 2, 2 * side], -1)
    assert level_of(jnp.asarray(boxes), (4, 8, 16)).tolist() == [0, 0, 0, 1, 1, 2, 2]
    rng = np.random.default_rng(3)
    maps = tuple(jnp.asarray(rng.normal(size=(1, n, n, 2)), jnp.float32) for n in (32, 16))
    boxes = jnp.array([[[0.0, 0, 40, 40], [0, 0, 124, 124]]])
    head = fast_rcnn.RegionHead(3, (4, 8), width=5)
    variables = jax.jit(head.init)(jax.random.key(0), maps, boxes)
    outputs = jax.jit(head.apply)(variables, maps, boxes)
    for region, level in enumerate((0, 1)):
        one = fast_rcnn.RegionHead(3, (4 * 2**level,), width=5)
        alone = jax.jit(one.apply)(
            variables, maps[level : level + 1], boxes[:, region : region + 1]
        )
        np.testing.assert_allclose(outputs.logits[:, region], alone.logits[:, 0], rtol=1e-5)
    assert roi_align is fast_rcnn.POOLINGS["align"]


def test_a_pyramid_adds_what_is_coarser():
    rng = np.random.default_rng(4)
    maps = tuple(rng.normal(size=(1, n, n, f)).astype("f4") for n, f in ((4, 2), (2, 3)))
    pyramid = Pyramid(5)
    variables = jax.jit(pyramid.init)(jax.random.key(0), maps)
    fine, coarse = pyramid.apply(variables, maps)
    params = jax.device_get(variables["params"])

    def smoothed(x, name):
        kernel = params[name]["kernel"]
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        rows, columns, _ = x.shape
        return params[name]["bias"] + sum(
            padded[i : i + rows, j : j + columns] @ kernel[i, j] for i in range(3) for j in range(3)
        )

    lateral = [
        maps[level][0] @ params[f"lateral{level}"]["kernel"][0, 0]
        + params[f"lateral{level}"]["bias"]
        for level in range(2)
    ]
    np.testing.assert_allclose(coarse[0], smoothed(lateral[1], "output1"), rtol=1e-4, atol=1e-5)
    merged = lateral[0] + lateral[1].repeat(2, 0).repeat(2, 1)
    np.testing.assert_allclose(fine[0], smoothed(merged, "output0"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["align", pytest.param("pool", marks=pytest.mark.slow)])
def test_padding_and_other_pictures_change_no_loss(pooling):
    rng = np.random.default_rng(5)
    batch = batch_of(rng)
    batch |= {"candidates": random_boxes(rng, 3, 20), "candidates_mask": rng.random((3, 20)) < 0.8}
    images = jnp.asarray(rng.normal(size=(3, 32, 32, 3)), jnp.float32)
    body, _ = make_body("darknet_small", (8,), (32, 32, 3), width=1 / 12)
    model = fast_rcnn.FastRCNN(
        body, fast_rcnn.RegionHead(3, (8,), width=8, pooling=pooling), fast_rcnn.Sampling(count=16)
    )
    variables = jax.jit(model.init)(jax.random.key(0), images)

    @jax.jit
    def losses(images, batch):
        return model.apply(variables, images, batch, jax.random.key(1), False, method="losses")

    whole = losses(images, batch)
    more = {k: np.concatenate([v, v[:, :1]], 1) for k, v in batch.items() if v.shape[1] == 4}
    more["boxes_mask"][:, -1] = False
    one = losses(images[:1], {k: v[:1] for k, v in (batch | more).items()})
    for name in ("class", "place"):
        assert jnp.isfinite(whole[name]).all()
        np.testing.assert_allclose(whole[name][0], one[name][0], rtol=1e-4)
    assert whole["place"][1] == 0 < whole["class"][1]
    found = jax.eval_shape(lambda v: model.apply(v, images, batch, method="detect"), variables)
    assert found.boxes.shape == (3, 100, 4)
