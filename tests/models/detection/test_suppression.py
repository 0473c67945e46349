"""Suppression equals the greedy loop over all pairs, written plainly in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.models.detection import Detections, soft_suppress, suppress


def plain_iou(boxes):
    """Of each box with each, float32 (N, N)."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clip(0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    whole = area[:, None] + area[None] - shared
    return np.where(whole > 0, shared / np.maximum(whole, 1), 0).astype(np.float32)


def plain_suppress(boxes, scores, labels, *, score, iou, comparison, most, per_class):
    """Indices of what the greedy loop keeps."""
    reaches = {">": np.greater, ">=": np.greater_equal}[comparison]
    drops = reaches(plain_iou(boxes), np.float32(iou)).tolist()
    waiting = [i for i in range(len(scores)) if reaches(scores[i], np.float32(score))]
    kept = []
    while waiting and len(kept) < most:
        best = max(waiting, key=lambda i: (scores[i], -i))
        kept.append(best)
        waiting = [
            i
            for i in waiting
            if i != best and not ((labels[i] == labels[best] or not per_class) and drops[best][i])
        ]
    return kept


def candidates(rng, pictures, count):
    """Boxes of whole pixels in a small picture, so that many overlaps are exactly 1/2 or 1/3, with
    scores of tenths, so that many are equal."""
    low = rng.integers(0, 8, (pictures, count, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 7, (pictures, count, 2))], -1)
    scores = rng.integers(0, 11, (pictures, count)) / 10
    labels = rng.integers(0, 3, (pictures, count))
    return boxes.astype(np.float32), scores.astype(np.float32), labels.astype(np.int32)


def assert_found(found, arrays, kept, most):
    """The detections of one picture are these candidates in this order, and padding."""
    fill = [(0, most - len(kept))]
    for name, array in zip(Detections._fields, arrays, strict=False):
        expected = np.pad(array[kept], fill + [(0, 0)] * (array.ndim - 1))
        np.testing.assert_array_equal(getattr(found, name), expected, err_msg=name)
    np.testing.assert_array_equal(found.mask, np.arange(most) < len(kept))


@pytest.mark.parametrize(
    ("per_class", "comparison"),
    [
        pytest.param(True, ">", marks=pytest.mark.slow),
        pytest.param(True, ">=", marks=pytest.mark.slow),
        pytest.param(False, ">", marks=pytest.mark.slow),
        (False, ">="),
    ],
)
def test_equals_the_greedy_loop_with_ties_and_overlaps_at_the_threshold(comparison, per_class):
    rng = np.random.default_rng(0)
    exact = 0
    for iou, score, count, most in ((0.5, 0.6, 40, 40), (1 / 3, 0.0, 90, 30)):
        arrays = candidates(rng, 125, count)
        found = suppress(
            *arrays,
            score_threshold=score,
            iou_threshold=iou,
            comparison=comparison,
            most=most,
            per_class=per_class,
        )
        for i in range(125):
            one = [array[i] for array in arrays]
            kept = plain_suppress(
                *one, score=score, iou=iou, comparison=comparison, most=most, per_class=per_class
            )
            assert_found(jax.tree.map(lambda x: x[i], found), one, kept, most)  # noqa: B023
            exact += (plain_iou(one[0]) == np.float32(iou)).sum()
    assert exact > 50  # The thresholds were met exactly.


def test_a_chain_of_boxes_is_decided_in_order():
    """Each drops the next alone, so that every second one stays, after as many rounds."""
    low = np.arange(100, dtype=np.float32)[:, None]
    boxes = jnp.asarray(np.concatenate([low * 0, low, low * 0 + 1, low + 3], 1))[None]
    scores = jnp.linspace(1, 0.5, 100)[None]
    labels = jnp.zeros((1, 100), jnp.int32)
    found = suppress(boxes, scores, labels, iou_threshold=0.3, most=100)
    assert found.boxes[0, :50, 1].tolist() == list(range(0, 100, 2))
    assert int(found.mask.sum()) == 50


def test_candidates_nothing_and_padding():
    boxes = jnp.asarray([[[0.0, 0, 2, 2], [4, 4, 6, 6], [8, 8, 9, 9]]] * 2)
    scores = jnp.asarray([[0.2, 0.9, 0.5], [-jnp.inf, jnp.nan, -jnp.inf]])
    labels = jnp.asarray([[0, 1, 2]] * 2, jnp.int32)
    for comparison in (">", ">="):
        found = suppress(boxes, scores, labels, candidates=2, most=5, comparison=comparison)
        assert found.labels[0].tolist() == [1, 2, 0, 0, 0]
        assert found.mask.tolist() == [[True, True, False, False, False], [False] * 5]
        soft = soft_suppress(boxes, scores, labels, most=5, comparison=comparison)
        assert soft.labels[0].tolist() == [1, 2, 0, 0, 0] and not soft.mask[1].any()
    with pytest.raises(InputError, match="unknown comparison '<'; choose one of: >, >="):
        suppress(boxes, scores, labels, comparison="<")


@pytest.mark.parametrize("decay", ["linear", "gaussian"])
def test_soft_suppression_equals_the_paper_s_loop(decay):
    rng = np.random.default_rng(1)
    boxes, scores, labels = candidates(rng, 20, 15)
    scores += rng.uniform(0, 0.01, scores.shape).astype(np.float32)  # Lowered, ties would be noise.
    found = soft_suppress(
        *map(jnp.asarray, (boxes, scores, labels)), decay=decay, score_threshold=0.2, most=9
    )
    for i in range(20):
        left, expected = dict(enumerate(scores[i].tolist())), []
        overlap = plain_iou(boxes[i])
        while len(expected) < 9:
            left = {k: score for k, score in left.items() if score > 0.2}
            if not left:
                break
            best = max(left, key=lambda k: left[k])  # noqa: B023
            expected.append((best, left.pop(best)))
            for k in left:
                iou = float(overlap[best, k])
                if labels[i, k] == labels[i, best]:
                    soft = 1 - iou * (iou > 0.3) if decay == "linear" else np.exp(-(iou**2) / 0.5)
                    left[k] *= soft
        count = int(found.mask[i].sum())
        assert count == len(expected)
        order = [k for k, _ in expected]
        np.testing.assert_array_equal(found.boxes[i, :count], boxes[i, order])
        np.testing.assert_allclose(found.scores[i, :count], [s for _, s in expected], rtol=1e-5)
