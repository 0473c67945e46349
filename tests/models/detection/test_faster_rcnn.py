"""Faster R-CNN against plain loops and torchvision."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import boxes as geometry
from dlcore.errors import InputError
from dlcore.models.detection import anchors, coding, fast_rcnn, faster_rcnn
from dlcore.models.detection.body import make_body

GOLDEN = pathlib.Path(__file__).parents[2] / "goldens" / "detection.npz"
jitted = jax.jit(faster_rcnn.proposal_losses, static_argnames="rules")
SHAPES = np.array([[8.0, 8.0], [16.0, 8.0], [12.0, 20.0]])


def batch_of(rng, pictures, objects=3):
    low = rng.uniform(0, 18, (pictures, objects, 2))
    boxes = np.concatenate([low, low + rng.uniform(6, 14, (pictures, objects, 2))], -1)
    batch = {
        "boxes": boxes.astype("f4"),
        "boxes_mask": np.ones((pictures, objects), bool),
        "labels": rng.integers(0, 4, (pictures, objects)).astype(np.int32),
        "crowd": np.zeros((pictures, objects), bool),
    }
    batch["boxes_mask"][0] = False
    batch["crowd"][-1, 0] = True
    return batch


def plain_proposal_losses(logits, codes, grid, objects, real, ignored):
    """Every anchor that is positive or negative counts."""
    overlap = np.array([[geometry.iou(a, o) for o in objects] for a in grid])
    overlap[:, ~real] = 0
    owner = {}
    for anchor in range(len(grid)):
        if real.any() and overlap[anchor].max() >= 0.7:
            owner[anchor] = int(overlap[anchor].argmax())
    for one in np.flatnonzero(real):
        for anchor in np.flatnonzero(overlap[:, one] == overlap[:, one].max()):
            owner[int(anchor)] = int(one)
    terms = []
    for anchor, box in enumerate(grid):
        if anchor in owner:
            one = objects[owner[anchor]]
            sides, own = one[2:] - one[:2], box[2:] - box[:2]
            middle = ((one[:2] + one[2:]) - (box[:2] + box[2:])) / 2
            wrong = abs(codes[anchor] - np.concatenate([middle / own, np.log(sides / own)]))
            place = np.where(wrong < 1 / 9, 4.5 * wrong**2, wrong - 1 / 18).sum()
            terms.append((np.log1p(np.exp(-logits[anchor])), place))
        elif overlap[anchor].max() < 0.3:
            inside = [geometry.intersection(box, o) for o in objects[ignored]]
            if all(part < geometry.area(box) / 2 for part in inside):
                terms.append((np.log1p(np.exp(logits[anchor])), 0.0))
    return np.mean(terms, 0)


def test_losses_are_those_of_a_loop_over_anchors():
    rng = np.random.default_rng(0)
    batch = batch_of(rng, 3)
    grid = anchors.grid((4, 4), 8, SHAPES)
    logits = rng.normal(size=(3, len(grid))).astype("f4")
    codes = 0.3 * rng.normal(size=(3, len(grid), 4)).astype("f4")
    # All anchors are sampled, for less than half of them are positive.
    rules = faster_rcnn.ProposalRules(sample=len(grid))
    found = jitted(
        jax.random.key(0),
        faster_rcnn.ProposalOutputs(jnp.asarray(logits), jnp.asarray(codes)),
        jnp.asarray(grid),
        batch,
        rules=rules,
    )
    for picture in range(3):
        there, crowd = batch["boxes_mask"][picture], batch["crowd"][picture]
        expected = plain_proposal_losses(
            logits[picture],
            codes[picture],
            grid,
            batch["boxes"][picture],
            there & ~crowd,
            there & crowd,
        )
        np.testing.assert_allclose(found["objectness"][picture], expected[0], rtol=1e-4)
        np.testing.assert_allclose(found["proposal"][picture], expected[1], rtol=1e-4)
    assert found["proposal"][0] == 0 < found["proposal"][1]


def test_losses_are_those_of_torchvision():
    with np.load(GOLDEN) as file:
        golden = dict(file)
    objects = golden["rpn/objects"][None]
    batch = {
        "boxes": objects,
        "boxes_mask": np.ones((1, len(objects[0])), bool),
        "labels": np.zeros((1, len(objects[0])), np.int32),
    }
    grid = jnp.asarray(golden["rpn/anchors"])
    outputs = faster_rcnn.ProposalOutputs(
        jnp.asarray(golden["rpn/logits"])[None], jnp.asarray(golden["coder/given"])[None]
    )
    rules = faster_rcnn.ProposalRules(sample=len(grid))
    found = jitted(jax.random.key(0), outputs, grid, batch, rules=rules)
    losses = jnp.stack([found["objectness"][0], found["proposal"][0]])
    np.testing.assert_allclose(losses, golden["rpn/losses"], rtol=1e-5)


def test_a_sample_is_half_positive_at_most():
    """With two anchors of each picture sampled, one positive and one negative are."""
    rng = np.random.default_rng(1)
    batch = batch_of(rng, 2)
    grid = jnp.asarray(anchors.grid((4, 4), 8, SHAPES))
    logits = jnp.full((2, len(grid)), 20.0)
    outputs = faster_rcnn.ProposalOutputs(logits, jnp.zeros((2, len(grid), 4)))
    rules = faster_rcnn.ProposalRules(sample=2)
    found = jitted(jax.random.key(0), outputs, grid, batch, rules=rules)
    # A negative anchor of logit 20 costs 20, a positive one nothing.
    np.testing.assert_allclose(found["objectness"], [20.0, 10.0], rtol=1e-5)


def test_proposals_are_those_of_a_loop():
    rng = np.random.default_rng(2)
    grid = anchors.grid((4, 4), 8, SHAPES)
    logits = rng.normal(size=(2, len(grid))).astype("f4")
    codes = 0.3 * rng.normal(size=(2, len(grid), 4)).astype("f4")
    codes[0, 0, 2] = -9  # lower than a pixel
    logits[0, 0] = 9
    rules = faster_rcnn.ProposalRules(candidates=20, iou_threshold=0.4)
    outputs = faster_rcnn.ProposalOutputs(jnp.asarray(logits), jnp.asarray(codes))
    boxes, mask = faster_rcnn.propose(outputs, jnp.asarray(grid), 32, rules, 8)
    for picture in range(2):
        placed = np.asarray(coding.decode(codes[picture], grid)).clip(0, 32)
        large = (placed[:, 2:] - placed[:, :2] >= 1).all(1)
        kept = []
        order = [int(i) for i in np.argsort(-logits[picture]) if large[i]][:20]
        for i in order:
            if all(geometry.iou(placed[i], placed[j]) <= 0.4 for j in kept):
                kept.append(i)
        assert 2 < len(kept) < 20 and 0 not in kept[: 1 - picture]
        count = min(len(kept), 8)
        assert mask[picture].tolist() == [True] * count + [False] * (8 - count)
        np.testing.assert_allclose(boxes[picture, :count], placed[kept[:8]], rtol=1e-5)


def make(strides, pyramid):
    body, _ = make_body("darknet_small", strides, (32, 32, 3), width=1 / 12)
    return faster_rcnn.FasterRCNN(
        body,
        fast_rcnn.RegionHead(4, strides, width=8),
        faster_rcnn.shapes_by_level(np.concatenate([SHAPES, [[20.0, 20.0]]]), len(strides)),
        width=8,
        pyramid=pyramid,
        rules=faster_rcnn.ProposalRules(sample=16, candidates=40, train=20, detect=10),
        sampling=fast_rcnn.Sampling(count=12, background=(0.0, 0.5)),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("strides", "pyramid"), [((8,), None), ((4, 8), 6)])
def test_both_networks_learn_and_the_joint_loss_is_theirs(strides, pyramid):
    rng = np.random.default_rng(3)
    batch = batch_of(rng, 2)
    images = jnp.asarray(rng.normal(size=(2, 32, 32, 3)), jnp.float32)
    model = make(strides, pyramid)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    stats = {name: value for name, value in variables.items() if name != "params"}
    key = jax.random.key(1)

    @jax.jit
    def run(params):
        def apply(*args, method, params=params):
            return model.apply({"params": params, **stats}, images, *args, method=method)

        def total(params):
            joint = apply(batch, key, False, method="losses", params=params)
            return sum(values.sum() for values in joint.values()), joint

        gradient, joint = jax.grad(total, has_aux=True)(params)
        anchor_key, region_key = jax.random.split(key)
        proposals = apply(method="proposed")
        apart = {
            **apply(batch, anchor_key, False, method="proposal_losses"),
            **apply(batch, proposals, region_key, False, method="region_losses"),
        }
        return joint, apart, apply(batch, method="detect"), gradient

    joint, apart, found, gradient = run(variables["params"])
    assert joint.keys() == {"objectness", "proposal", "class", "place"}
    for name, values in joint.items():
        assert jnp.isfinite(values).all()
        np.testing.assert_allclose(values, apart[name], rtol=1e-5)
    assert found.boxes.shape == (2, 100, 4)
    # No part of the network is left out, but for the codes of classes that nobody has.
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_shapes_that_the_levels_do_not_divide_are_refused():
    with pytest.raises(InputError, match="3 anchor shapes.*2 levels"):
        faster_rcnn.shapes_by_level(SHAPES, 2)
