"""Anchors: grids, k-means, assignment by plain loops, and balanced samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import boxes as geometry
from dlcore.errors import InputError
from dlcore.models.detection import anchors


def test_a_grid_has_the_shapes_around_the_middle_of_each_cell():
    shapes = anchors.shapes_of([8, 16], [0.5, 1, 2])
    np.testing.assert_allclose(shapes.prod(1), [64] * 3 + [256] * 3, rtol=1e-6)
    np.testing.assert_allclose(shapes[:, 0] / shapes[:, 1], [0.5, 1, 2] * 2, rtol=1e-6)
    boxes = anchors.grid((3, 2), 16, shapes).reshape(3, 2, 6, 4)
    for i in range(3):
        for j in range(2):
            for k in range(6):
                y, x, height, width = geometry.convert(boxes[i, j, k], "corners", "centre")[
                    [1, 0, 2, 3]
                ]
                expected = [(i + 0.5) * 16, (j + 0.5) * 16, *shapes[k]]
                np.testing.assert_allclose([y, x, height, width], expected, rtol=1e-5)


def test_k_means_finds_planted_shapes_and_repeats_itself():
    rng = np.random.default_rng(0)
    planted = np.array([[10, 12], [20, 60], [50, 50], [80, 30]], float)
    sizes = (planted[:, None] * rng.uniform(0.9, 1.1, (4, 50, 2))).reshape(-1, 2)
    found = anchors.fit(np.concatenate([sizes, [[0, 5]]]), 4, seed=3)
    order = np.argsort(planted.prod(1))
    np.testing.assert_allclose(found.shapes, planted[order], rtol=0.05)
    assert (found.shapes == anchors.fit(sizes, 4, seed=3).shapes).all()
    # The figures are those of the shapes themselves.
    best = [
        max(
            np.minimum(size, shape).prod()
            / (size.prod() + shape.prod() - np.minimum(size, shape).prod())
            for shape in found.shapes.astype(float)
        )
        for size in sizes
    ]
    assert found.mean_iou == pytest.approx(np.mean(best), abs=1e-6) and found.recall == 1
    fits = anchors.fit_each(sizes, [1, 2, 4])
    ious = [one.mean_iou for one in fits.values()]
    assert ious == sorted(ious) and fits[1].recall < 0.6
    assert len(anchors.render(fits).splitlines()) == 4
    with pytest.raises(InputError, match="3 anchors .* 2 different sizes; give a number from 1"):
        anchors.fit(np.array([[1.0, 2], [1, 2], [3, 3]]), 3)


def plain_assignment(anchor_boxes, boxes, real, positive, negative, best_of_each):
    overlap = np.asarray(geometry.pairwise(geometry.iou, boxes, anchor_boxes))
    overlap[~real] = 0
    owner, kind, forced = [], [], {}
    if best_of_each:
        for one in sorted(range(len(boxes)), key=lambda n: (-overlap[n].max(), n)):
            free = [a for a in range(len(anchor_boxes)) if a not in forced]
            best = max(free, key=lambda a: (overlap[one, a], -a))  # noqa: B023
            forced |= {best: one} if overlap[one, best] > 0 else {}
        for a in range(len(anchor_boxes)):
            ties = [n for n in range(len(boxes)) if overlap[n, a] == overlap[n].max() > 0]
            if ties and a not in forced:
                forced[a] = max(ties, key=lambda n: (overlap[n, a], -n))  # noqa: B023
    for a in range(len(anchor_boxes)):
        best = int(overlap[:, a].argmax())
        highest = overlap[best, a]
        owner.append(forced.get(a, best))
        if a in forced or highest >= positive:
            kind.append(1)
        else:
            kind.append(0 if negative[0] <= highest < negative[1] else -1)
    return owner, kind


@pytest.mark.parametrize("best_of_each", [True, False])
def test_assignment_equals_loops_with_ties_and_each_object_has_an_anchor(best_of_each):
    rng = np.random.default_rng(0)
    boxes_of_grid = anchors.grid((4, 4), 8, np.array([[8, 8], [12, 6]]))
    options = {"positive": 0.5, "negative": (0.1, 0.4), "best_of_each": best_of_each}
    assign = jax.jit(
        lambda boxes, mask: anchors.assign(jnp.asarray(boxes_of_grid), boxes, mask, **options)
    )
    weak = 0
    for _ in range(50):
        low = rng.integers(0, 24, (6, 2))
        boxes = np.concatenate([low, low + rng.integers(1, 14, (6, 2))], 1).astype(np.float32)
        boxes[1] = boxes[0]  # Twins want the same anchors.
        mask = np.arange(6) < rng.integers(0, 7)
        found = assign(boxes, mask)
        owner, kind = plain_assignment(boxes_of_grid, boxes, mask, *options.values())
        np.testing.assert_array_equal(found.matched, owner)
        kinds = np.where(found.positive, 1, np.where(found.negative, 0, -1))
        np.testing.assert_array_equal(kinds, kind)
        owners = set(np.asarray(found.matched)[np.asarray(found.positive)].tolist())
        # Those that as many anchors touch as there are objects surely find a free one.
        touched = np.asarray(geometry.pairwise(geometry.intersection, boxes, boxes_of_grid)) > 0
        missed = mask & (touched.sum(1) >= len(boxes)) & ~np.isin(np.arange(6), list(owners))
        assert not best_of_each or not missed.any()
        weak += missed.any()
    assert best_of_each or weak  # Without the rule some objects have none.


def test_ignored_objects_have_no_anchors_and_no_negatives():
    boxes_of_grid = jnp.asarray(anchors.grid((2, 2), 8, np.array([[8, 8]])))
    crowd = jnp.array([[0.0, 0, 8, 12], [9, 9, 15, 15]])
    real = jnp.ones(2, bool)
    found = jax.jit(anchors.assign)(boxes_of_grid, crowd, real, ignored=jnp.array([True, False]))
    assert found.positive.tolist() == [False, False, False, True]
    assert found.negative.tolist() == [False, False, True, False]
    nothing = jax.jit(anchors.assign)(boxes_of_grid, crowd[:0], real[:0])
    assert nothing.negative.all() and not nothing.positive.any()


@pytest.mark.parametrize(
    "positives, negatives, chosen",
    [(20, 30, (4, 12)), (2, 30, (2, 14)), (3, 5, (3, 5)), (0, 0, (0, 0))],
)
def test_samples_are_balanced_and_drawn_from_all(positives, negatives, chosen):
    kind = np.full(60, -1)
    kind[np.random.default_rng(0).permutation(60)[: positives + negatives]] = np.repeat(
        [1, 0], [positives, negatives]
    )
    given = anchors.Assignment(jnp.zeros(60, jnp.int32), jnp.asarray(kind == 1),
                               jnp.asarray(kind == 0))  # fmt: skip
    draw = jax.jit(jax.vmap(lambda key: anchors.sample(key, given, count=16, positive_share=0.25)))
    found = draw(jax.random.split(jax.random.key(0), 200))
    places, positive, mask = map(np.asarray, found)
    assert (positive.sum(1) == chosen[0]).all() and (mask.sum(1) == sum(chosen)).all()
    assert (kind[places[positive]] == 1).all() and (kind[places[mask & ~positive]] == 0).all()
    assert all(len(set(row)) == 16 for row in places.tolist())
    if sum(chosen):
        assert set(places[mask].tolist()) == set(np.flatnonzero(kind >= 0).tolist())
