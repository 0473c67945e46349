"""R-CNN: warping, mining and both regressions against plain ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import boxes as geometry
from dlcore.models.detection import coding, rcnn
from dlcore.models.detection.body import make_body

ENCODE = jax.jit(coding.encode)


def test_warping_keeps_context_and_fills_with_the_mean():
    """On a ramp every warped pixel is the place of its middle; outside of the picture it is 0."""
    ramp = jnp.broadcast_to(jnp.arange(60.0)[None, :, None, None], (1, 60, 60, 1)) + 1
    box = jnp.array([[[10.0, 20, 40, 40], [-30, 0, 30, 60]]])
    warped = rcnn.warp(ramp, box, 16)
    share = 1 - 2 * 16 / 227
    for number, (low, high) in enumerate(((10, 40), (-30, 30))):
        height = (high - low) / share
        top = (low + high - height) / 2
        rows = top + (np.arange(16) + 0.5) * height / 16
        inside = (rows > 2) & (rows < 58)
        found = np.asarray(warped[0, number, :, 8, 0])
        np.testing.assert_allclose(found[inside], rows[inside] + 0.5, rtol=1e-4)
        assert (found[rows < -4] == 0).all()
    assert (np.asarray(warped)[0, 1, :5] == 0).all()


def pictures_of(rng, count, classes=2):
    """Features tell the classes apart along two axes; places tell how far a candidate is off."""
    for _ in range(count):
        low = rng.uniform(0, 40, (2, 2))
        objects = np.concatenate([low, low + rng.uniform(15, 25, (2, 2))], -1)
        labels = rng.integers(0, classes, 2)
        shift = rng.uniform(-6, 6, (30, 4))
        boxes = np.concatenate([objects[np.arange(30) % 2] + shift, rng.uniform(0, 30, (20, 4))])
        boxes[30:, 2:] += boxes[30:, :2]
        overlap = geometry.pairwise(geometry.iou, boxes, objects)
        right = overlap.max(1) >= 0.5
        features = 0.3 * rng.normal(size=(50, 3))
        features[right] += 3 * np.eye(3)[labels[overlap.argmax(1)[right]]]
        codes = ENCODE(objects[overlap.argmax(1)], boxes)
        places = np.concatenate([codes, rng.normal(size=(50, 2))], 1)
        true = 3 * np.eye(3)[labels] + 0.3 * rng.normal(size=(2, 3))
        yield rcnn.Candidates(boxes, features, places, objects, labels, true, np.zeros(50, bool))


def test_machines_tell_classes_apart():
    pictures = list(pictures_of(np.random.default_rng(0), 40))
    fitting = rcnn.Fitting(cost=0.1, ridge=1e-3)
    machines = rcnn.fit_machines(pictures, 2, fitting)
    for picture in pictures:
        margins = picture.features @ machines.weights + machines.biases
        overlap = geometry.pairwise(geometry.iou, picture.boxes, picture.objects)
        right = overlap.max(1) >= 0.5
        own = picture.labels[overlap.argmax(1)]
        assert (margins[right].argmax(1) == own[right]).mean() > 0.95
        true = picture.object_features @ machines.weights + machines.biases
        assert (true.argmax(1) == picture.labels).all() and (true.max(1) > 0).all()
    assert machines.fitted == 1 and all(part.dtype == np.float32 for part in machines)


def test_mining_ends_near_what_all_negatives_at_once_give():
    pictures = list(pictures_of(np.random.default_rng(1), 40))
    few = rcnn.Fitting(cost=0.1, renewal=100)
    mined = rcnn.fit_machines(pictures, 2, few)
    whole = rcnn.fit_machines(
        pictures, 2, dataclasses.replace(few, renewal=10**9, hard=-np.inf, easy=-np.inf)
    )
    features = np.concatenate([picture.features for picture in pictures])
    one, other = (features @ m.weights + m.biases for m in (mined, whole))
    assert ((one > 0) == (other > 0)).mean() > 0.98


def test_boxes_are_corrected_by_ridge_regression_of_near_candidates():
    pictures = list(pictures_of(np.random.default_rng(2), 20))
    machines = rcnn.fit_machines(pictures, 2, rcnn.Fitting(ridge=2.0))
    inputs, targets = [], []
    for picture in pictures:
        overlap = geometry.pairwise(geometry.iou, picture.boxes, picture.objects)
        for at in range(50):
            best = overlap[at].argmax()
            if overlap[at, best] > 0.6 and picture.labels[best] == 1:
                inputs.append(picture.places[at])
                targets.append(picture.places[at, :4])  # the codes themselves, see above
    x, y = np.stack(inputs), np.stack(targets)
    centred = x - x.mean(0)
    weights = np.linalg.solve(centred.T @ centred + 2 * np.eye(6), centred.T @ (y - y.mean(0)))
    found = machines.place_weights.reshape(6, 2, 4)[:, 1]
    np.testing.assert_allclose(found, weights, rtol=1e-3, atol=1e-4)
    bias = y.mean(0) - x.mean(0) @ weights
    np.testing.assert_allclose(machines.place_biases[4:], bias, rtol=1e-3, atol=1e-4)


def test_a_class_without_an_object_is_found_nowhere():
    pictures = list(pictures_of(np.random.default_rng(3), 6))
    machines = rcnn.fit_machines(pictures, 3)
    assert (machines.weights[:, 2] == 0).all() and machines.biases[2] == -1
    assert (machines.place_weights.reshape(6, 3, 4)[:, 2] == 0).all()


@pytest.fixture(scope="module")
def small():
    body, _ = make_body("darknet_small", (4,), (16, 16, 3), width=1 / 12)
    model = rcnn.RCNN(
        body, 2, side=16, hidden=6, sampling=rcnn.Sampling(8, 1.0, background=(0.0, 0.5))
    )
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    return model, images, jax.jit(model.init)(jax.random.key(1), images)


def test_detections_are_those_of_the_network_until_machines_are_fitted(small):
    model, images, variables = small
    rng = np.random.default_rng(4)
    low = rng.uniform(0, 16, (2, 7, 2))
    batch = {
        "candidates": np.concatenate([low, low + rng.uniform(6, 14, (2, 7, 2))], -1).astype("f4"),
        "candidates_mask": np.arange(7)[None] < np.array([[7], [4]]),
    }
    read = jax.jit(lambda v, boxes: model.apply(v, images, boxes=boxes)[0])
    said = read(variables, jnp.asarray(batch["candidates"]))
    detect = jax.jit(lambda v: model.apply(v, images, batch, method="detect"))
    probabilities = np.asarray(jax.nn.softmax(said.logits))[..., :2]
    before = detect(variables)
    for picture, count in enumerate((7, 4)):
        best = probabilities[picture, :count].max()
        np.testing.assert_allclose(before.scores[picture, 0], best, rtol=1e-5)
    shapes = rcnn.Machines.shapes(2, 6, said.places.shape[-1])
    machines = rcnn.Machines(
        *(rng.normal(size=shape).astype("f4") * 0.05 for shape in shapes[:4]), np.float32(1)
    )
    after = detect({**variables, rcnn.MACHINES: machines._asdict()})
    margins = np.asarray(said.features) @ machines.weights + machines.biases
    region, label = np.unravel_index(margins[0].argmax(), margins[0].shape)
    np.testing.assert_allclose(
        after.scores[0, 0], 1 / (1 + np.exp(-margins[0, region, label])), rtol=1e-4
    )
    code = np.asarray(said.places)[0, region] @ machines.place_weights + machines.place_biases
    box = coding.decode(code.reshape(2, 4)[label], batch["candidates"][0, region])
    assert after.labels[0, 0] == label
    np.testing.assert_allclose(after.boxes[0, 0], np.clip(box, 0, 32), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_network_learns_from_candidates_and_pictures_without_objects(small):
    model, images, variables = small
    boxes = jnp.array([[[4.0, 4, 16, 16]], [[0.0, 0, 0, 0]]])
    batch = {
        "boxes": boxes,
        "boxes_mask": jnp.array([[True], [False]]),
        "labels": jnp.array([[1], [0]], jnp.int32),
        "candidates": jnp.broadcast_to(
            jnp.array([[[5.0, 5, 16, 16], [16, 16, 30, 30]]]), (2, 2, 4)
        ),
        "candidates_mask": jnp.ones((2, 2), bool),
    }

    everything = jnp.concatenate([batch["candidates"], boxes], 1)

    @jax.jit
    def run(variables):
        losses = model.apply(variables, images, batch, jax.random.key(0), False, method="losses")
        return losses["class"], model.apply(variables, images, boxes=everything)[0].logits

    found, logits = (np.asarray(x) for x in run(variables))
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    # The near candidate and the object are positive, the other candidate is background.
    np.testing.assert_allclose(
        found,
        [-(logs[0, 0, 1] + logs[0, 2, 1] + logs[0, 1, 2]) / 3, -logs[1, :2, 2].mean()],
        rtol=1e-4,
    )
