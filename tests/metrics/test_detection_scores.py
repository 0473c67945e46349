"""Scores of detectors equal plain loops, pycocotools and examples worked by hand."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import metrics
from dlcore.boxes import Letterbox
from dlcore.metrics import Judgement, coco_scores, error_scores, voc_scores
from dlcore.metrics.detection import Picture

NAMES = ("a", "b", "c")


def picture(objects, found, size=(200, 200)):
    """Of objects (box, label, difficult, crowd) and detections (box, score, label)."""
    boxes, labels, difficult, crowd = zip(*objects, strict=True) if objects else [()] * 4
    places, scores, found_labels = zip(*found, strict=True) if found else [()] * 3
    best = np.argsort(-np.array(scores, float), kind="stable")
    return Picture(
        size,
        np.array(boxes, float).reshape(-1, 4),
        np.array(labels, int),
        np.array(difficult, bool),
        np.array(crowd, bool),
        np.array(places, float).reshape(-1, 4)[best],
        np.array(scores, float)[best],
        np.array(found_labels, int)[best],
    )


def judgement(*pictures):
    return Judgement(NAMES, dict(enumerate(pictures)))


def random_judgement(seed, crowds=True):
    """Pictures with near, far and wrong detections, equal scores, and pictures without any."""
    rng = np.random.default_rng(seed)

    def one():
        objects, found = [], []
        for _ in range(rng.integers(0, 6)):
            low, side = rng.uniform(0, 100, 2), rng.choice([20, 50, 100]) * rng.uniform(0.7, 1, 2)
            box = np.concatenate([low, low + side])
            kind = rng.random()
            objects.append((box, rng.integers(0, 2), kind < 0.15, crowds and 0.15 < kind < 0.3))
            for _ in range(rng.integers(0, 4)):
                near = box + rng.normal(0, 0.08, 4) * np.tile(side, 2)
                label = objects[-1][1] if rng.random() < 0.8 else rng.integers(0, 3)
                found.append((near, rng.integers(0, 20) / 20, label))
        return picture(objects, found if rng.random() < 0.9 else [])

    return judgement(*[one() for _ in range(40)])


def plain_iou(a, b, crowd=False):
    height = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    size = (a[2] - a[0]) * (a[3] - a[1])
    both = size if crowd else size + (b[2] - b[0]) * (b[3] - b[1]) - height * width
    return height * width / both if both > 0 else 0


def plain_coco(pictures, label, threshold, areas=(0, 1e10)):
    """COCO's average precision of a class at one threshold; None where it has no objects."""
    ranked, count = [], 0
    for one in pictures:
        objects = []
        for box, of, difficult, crowd in zip(*one[1:5], strict=True):
            if of == label:
                area = (box[2] - box[0]) * (box[3] - box[1])
                ignored = difficult or crowd or not areas[0] <= area <= areas[1]
                objects.append((bool(ignored), bool(crowd), box))
        objects.sort(key=lambda one: one[0])
        count += sum(not ignored for ignored, _, _ in objects)
        used = set()
        chosen = [(s, b) for b, s, of in zip(*one[5:], strict=True) if of == label]
        for score, box in sorted(chosen, key=lambda one: -one[0])[:100]:
            match, best = None, threshold
            for k, (ignored, crowd, other) in enumerate(objects):
                if k in used and not crowd:
                    continue
                if match is not None and not objects[match][0] and ignored:
                    break
                iou = plain_iou(box, other, crowd)
                if iou >= best:
                    match, best = k, iou
            if match is None:
                area = (box[2] - box[0]) * (box[3] - box[1])
                if areas[0] <= area <= areas[1]:
                    ranked.append((score, False))
            else:
                used.add(match)
                if not objects[match][0]:
                    ranked.append((score, True))
    if not count:
        return None
    ranked.sort(key=lambda one: -one[0])
    right, points = 0, []
    for rank, (_, is_right) in enumerate(ranked, 1):
        right += is_right
        points.append((right / count, right / rank))
    recalls = np.linspace(0, 1, 101)
    return np.mean([max((p for r, p in points if r >= level), default=0) for level in recalls])


@pytest.mark.parametrize("seed", [0, 1])
def test_coco_equals_a_plain_reference_with_crowds_and_empty_pictures(seed):
    judged = random_judgement(seed)
    scores = coco_scores(judged)
    assert any(not len(one.found) for one in judged.ordered())
    assert any(one.crowd.any() for one in judged.ordered())
    thresholds = np.linspace(0.5, 0.95, 10)

    def mean(labels, levels, areas=(0, 1e10)):
        each = [plain_coco(judged.ordered(), k, t, areas) for k in labels for t in levels]
        each = [one for one in each if one is not None]
        return np.mean(each) if each else np.nan

    expected = {
        "ap": mean(range(3), thresholds),
        "ap50": mean(range(3), [0.5]),
        "ap75": mean(range(3), [0.75]),
        "small": mean(range(3), thresholds, (0, 32**2)),
        "medium": mean(range(3), thresholds, (32**2, 96**2)),
        "large": mean(range(3), thresholds, (96**2, 1e10)),
    }
    for name, value in expected.items():
        assert getattr(scores, name) == pytest.approx(value, abs=1e-9, nan_ok=True), name
    by_class = [mean([k], thresholds) for k in range(3)]
    np.testing.assert_allclose(scores.by_class, by_class, atol=1e-9)
    assert np.isnan(scores.by_class[2]) and 0.1 < scores.ap < 0.9  # No object is a "c".


def plain_voc(pictures, label, eleven):
    ranked, count = [], 0
    for number, one in enumerate(pictures):
        mine = np.flatnonzero(one.labels == label)
        count += int((~one.ignored[mine]).sum())
        ranked += [
            (-score, number, k, box, mine)
            for k, (box, score, of) in enumerate(zip(*one[5:], strict=True))
            if of == label
        ]
    if not count:
        return np.nan
    used, rank, right, points = set(), 0, 0, []
    for _, number, _, box, mine in sorted(ranked, key=lambda one: one[:3]):
        one = pictures[number]
        ious = [plain_iou(box, one.boxes[k]) for k in mine]
        best = mine[int(np.argmax(ious))] if ious else None
        hit = best is not None and max(ious) >= 0.5
        if hit and one.ignored[best]:
            continue
        rank += 1
        if hit and (number, best) not in used:
            used.add((number, best))
            right += 1
        points.append((right, right / rank))
    if eleven:
        levels = [(k, 10) for k in range(11)]
        return (
            sum(
                max((p for r, p in points if r * of >= level * count), default=0)
                for level, of in levels
            )
            / 11
        )
    return sum(
        max((p for r, p in points if r >= level), default=0) for level in range(1, count + 1)
    ) / count  # fmt: skip


@pytest.mark.parametrize("eleven", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_voc_equals_a_plain_reference(seed, eleven):
    judged = random_judgement(seed)
    scores = voc_scores(judged, eleven_points=eleven)
    expected = [plain_voc(judged.ordered(), k, eleven) for k in range(3)]
    np.testing.assert_allclose(scores.by_class, expected, atol=1e-12)
    assert scores.mean == pytest.approx(np.nanmean(expected)) and 0.2 < scores.mean < 0.9


def test_perfect_and_missing_detections():
    truth = [((10, 10, 50, 60), 0, False, False), ((60, 60, 190, 190), 1, False, False)]
    right = [(box, 0.9, label) for box, label, _, _ in truth]
    for judged, value in (
        (judgement(picture(truth, right), picture([], [])), 1),
        (judgement(picture(truth, []), picture([], right)), 0),
    ):
        assert voc_scores(judged).mean == value and coco_scores(judged).ap == pytest.approx(value)
        assert coco_scores(judged).large == pytest.approx(value)
    for nothing in (judgement(), judgement(picture([], right))):
        assert np.isnan(voc_scores(nothing).mean) and np.isnan(coco_scores(nothing).ap)
        assert np.isnan(coco_scores(nothing).recall)
    wrong = error_scores(judgement(picture([], right)))
    assert wrong.counts["background"] == 2 and wrong.shares["background"] == 1


def test_batches_padding_and_parts_change_nothing():
    """Three pictures of own sizes, in a square of 64; the detections are given in no order."""
    rng = np.random.default_rng(0)
    sizes = np.array([[100, 50], [32, 64], [64, 64], [1, 1]], np.int32)
    boxes = np.tile([10.0, 20, 40, 50], (4, 2, 1)) + rng.uniform(0, 3, (4, 2, 4))
    batch = {
        "image": np.zeros((4, 64, 64, 3), np.uint8),
        "boxes": boxes.astype(np.float32),
        "boxes_mask": np.array([[1, 1], [1, 0], [0, 0], [1, 1]], bool),
        "labels": np.array([[0, 1]] * 4, np.int32),
        "image_id": np.array([7, 3, 5, 9], np.int32),
        "size": sizes,
        "weight": np.array([1, 1, 1, 0], np.float32),
    }
    found = SimpleNamespace(
        boxes=boxes[:, ::-1] + 1,
        scores=np.array([[0.5, 0.6]] * 4),
        labels=np.array([[1, 0]] * 4),
        mask=np.array([[1, 1], [1, 1], [0, 1], [1, 1]], bool),
    )
    whole = Judgement(NAMES)
    whole.add(batch, found)
    assert sorted(whole.pictures) == [3, 5, 7]
    one = whole.pictures[7]
    back = Letterbox.fit(100, 50, 64).to_picture(boxes[0] + 1).clip(0, [100, 50, 100, 50])
    np.testing.assert_allclose(one.found, back, rtol=1e-6)
    assert one.scores.tolist() == [0.6, 0.5] and one.found_labels.tolist() == [0, 1]
    assert len(whole.pictures[3].boxes) == 1 and len(whole.pictures[5].boxes) == 0

    parts = []
    for rows in ([2, 1], [0, 1, 3]):  # Picture 3 comes twice.
        part = Judgement(NAMES)
        taken = SimpleNamespace(**{key: value[rows] for key, value in vars(found).items()})
        part.add({key: value[rows] for key, value in batch.items()}, taken)
        parts.append(part)
    for merged in (parts[0].merge(parts[1]), parts[1].merge(parts[0])):
        for first, second in zip(merged.ordered(), whole.ordered(), strict=True):
            for left, right in zip(first, second, strict=True):
                np.testing.assert_array_equal(left, right)


def test_errors_by_kind_and_what_they_cost():
    square = (0, 0, 100, 100)
    far = (100, 100, 200, 200)
    truth = [(square, 0, False, False), (far, 1, False, False)]
    near = (0, 0, 100, 40)  # IoU 0.4
    cases = {
        "place": [(near, 0.9, 0), (far, 0.8, 1)],
        "class": [(square, 0.9, 2), (far, 0.8, 1)],
        "both": [(near, 0.9, 1), (square, 0.8, 0), (far, 0.7, 1)],
        "duplicate": [(square, 0.9, 0), (square, 0.8, 0), (far, 0.8, 1)],
        "background": [((0, 150, 20, 200), 0.9, 0), (square, 0.8, 0), (far, 0.8, 1)],
        "missed": [(far, 0.8, 1)],
    }
    for kind, found in cases.items():
        scores = error_scores(judgement(picture(truth, found)))
        assert scores.counts == {name: int(name == kind) for name in cases}, kind
        assert scores.shares[kind] == 1
        plain = voc_scores(judgement(picture(truth, found))).mean
        if kind != "missed":
            assert plain + scores.gains[kind] == 1
        assert all(gain == 0 for name, gain in scores.gains.items() if name != kind)
    # Without the missed object its class has none, and the other class is perfect.
    assert scores.gains["missed"] == 0.5
    # A mended place counts once, and not where the object was found.
    twice = [(near, 0.9, 0), (near, 0.8, 0), (far, 0.7, 1)]
    scores = error_scores(judgement(picture(truth, twice)))
    assert scores.counts["place"] == 2 and scores.gains["place"] == 0.5
    # Difficult objects make neither errors nor misses; weak detections may be left out.
    difficult = [(square, 0, True, False), (far, 1, False, False)]
    scores = error_scores(
        judgement(picture(difficult, [(square, 0.9, 0), (far, 0.8, 1), (near, 0.1, 1)])),
        score_threshold=0.5,
    )
    assert not any(scores.counts.values())


def test_landmarks_of_hidden_points_and_padding_count_nothing():
    truth = np.zeros((2, 1, 3, 2), np.float32)
    predicted = truth + np.array([[0, 1], [3, 4], [9, 9]], np.float32)
    mask = np.array([[[1, 1, 0]], [[1, 1, 1]]], bool)
    scale = np.array([[10.0], [0.0]], np.float32)
    scores = metrics.landmark_scores(*map(jnp.asarray, (predicted, truth, mask, scale)))
    assert float(scores["nme"].compute()) == pytest.approx((0.1 + 0.5) / 2)
    assert float(scores["pck"].compute()) == 0.5 and float(scores["nme"].weight) == 2
