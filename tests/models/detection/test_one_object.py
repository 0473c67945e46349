"""The localizer and the landmarks against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.models.detection.body import make_body
from dlcore.models.detection.landmarks import LandmarkNet, truth
from dlcore.models.detection.localizer import Localizer

SIDE = 32
BODY, _ = make_body("darknet_small", (8,), (SIDE, SIDE, 3), width=1 / 24)
WITH_FINER, _ = make_body("darknet_small", (4, 8), (SIDE, SIDE, 3), width=1 / 24)
KEY = jax.random.key(0)
IMAGES = jax.random.normal(KEY, (4, SIDE, SIDE, 3))
# A small and a large object, nothing, a crowd alone, one object.
BOXES = np.zeros((4, 2, 4), np.float32)
BOXES[0] = [[1, 1, 5, 5], [8, 10, 28, 20]]
BOXES[2, 0] = [0, 0, 30, 30]
BOXES[3, 0] = [4, 6, 20, 30]
BATCH = {
    "boxes": BOXES,
    "boxes_mask": np.array([[1, 1], [0, 0], [1, 0], [1, 0]], bool),
    "labels": np.array([[2, 1], [0, 0], [0, 0], [2, 0]], np.int32),
    "crowd": np.array([[0, 0], [0, 0], [1, 0], [0, 0]], bool),
}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def applied(net, variables, batch):
    """The outputs, losses, detections and activations of the four pictures, compiled together."""

    @jax.jit
    def run(variables):
        outputs, activations = net.apply(variables, IMAGES)
        return (
            outputs,
            net.apply(variables, IMAGES, batch, KEY, train=False, method="losses"),
            net.apply(variables, IMAGES, {}, method="detect"),
            activations,
        )

    outputs, *others = run(variables)
    return np.asarray(outputs, np.float64), *others


def test_the_loss_of_the_localizer_is_that_of_plain_loops():
    net = Localizer(BODY, 3, hidden=8)
    variables = jax.jit(net.init)(KEY, IMAGES)
    variables["params"]["output"]["bias"] += jnp.linspace(-1, 1, 8)
    outputs, found, detections, activations = applied(net, variables, BATCH)
    looks = np.asarray(activations["where"], np.float64)
    largest = {0: 1, 3: 0}
    for picture, y in enumerate(outputs):
        there = picture in largest
        score = -np.log(sigmoid(y[0]) if there else 1 - sigmoid(y[0]))
        expected = {"object": 0 if picture == 2 else score, "where": 0, "place": 0, "class": 0}
        if there:
            box = BOXES[picture, largest[picture]] / SIDE
            wanted = [
                (box[0] + box[2]) / 2,
                (box[1] + box[3]) / 2,
                box[2] - box[0],
                box[3] - box[1],
            ]
            row, column = int(wanted[0] * 4), int(wanted[1] * 4)
            where = looks[picture]
            expected["where"] = np.log(np.exp(where).sum()) - where[row, column]
            expected["place"] = 5 * np.square(y[1:5] - wanted).sum()
            label = BATCH["labels"][picture, largest[picture]]
            expected["class"] = np.log(np.exp(y[5:]).sum()) - y[5 + label]
        for part, value in expected.items():
            np.testing.assert_allclose(found[part][picture], value, rtol=1e-4, err_msg=part)
    assert detections.boxes.shape == (4, 1, 4)
    best = outputs[0, 5:]
    score = sigmoid(outputs[0, 0]) * np.exp(best.max()) / np.exp(best).sum()
    np.testing.assert_allclose(detections.scores[0, 0], score, rtol=1e-4)
    assert detections.labels[0, 0] == best.argmax()


POINTS = np.zeros((4, 2, 2, 2), np.float32)
POINTS[0, 1] = [[9, 11.5], [27, 19]]
POINTS[3, 0] = [[4, 8], [19.25, 30]]
VISIBLE = np.zeros((4, 2, 2), bool)
VISIBLE[0, 1] = [True, True]
VISIBLE[3, 0] = [False, True]
LANDMARKS = {**BATCH, "landmarks": POINTS, "landmarks_mask": VISIBLE}


def test_landmarks_are_those_of_the_largest_object():
    points, visible = truth(LANDMARKS)
    np.testing.assert_array_equal(points[0], POINTS[0, 1])
    np.testing.assert_array_equal(points[3], POINTS[3, 0])
    assert visible.tolist() == [[True, True], [False, False], [False, False], [False, True]]


@pytest.mark.parametrize(
    ("form", "finer"),
    [
        pytest.param("coordinates", 0, marks=pytest.mark.slow),
        pytest.param("coordinates", 4, marks=pytest.mark.slow),
        pytest.param("soft_argmax", 0, marks=pytest.mark.slow),
        pytest.param("soft_argmax", 4, marks=pytest.mark.slow),
        pytest.param("heat_map", 0, marks=pytest.mark.slow),
        ("heat_map", 4),
    ],
)
def test_the_loss_of_landmarks_is_that_of_plain_loops(form, finer):
    body = WITH_FINER if finer else BODY
    net = LandmarkNet(body, 2, form=form, hidden=8, passthrough=finer)
    variables = jax.jit(net.init)(KEY, IMAGES)
    outputs, found, landmarks, _ = applied(net, variables, LANDMARKS)
    assert landmarks.points.shape == (4, 2, 2)
    wanted = {(0, 0): POINTS[0, 1, 0], (0, 1): POINTS[0, 1, 1], (3, 1): POINTS[3, 0, 1]}
    losses = np.zeros(4)
    for (picture, p), point in wanted.items():
        if form == "coordinates":
            place = SIDE * sigmoid(outputs[picture, p])
        else:
            heat = np.exp(outputs[picture, :, :, p])
            heat /= heat.sum()
            middles = (np.arange(8) + 0.5) * 4
            place = [(heat.sum(1) * middles).sum(), (heat.sum(0) * middles).sum()]
        if form == "heat_map":
            y, x = np.meshgrid(middles, middles, indexing="ij")
            away = ((y - point[0]) ** 2 + (x - point[1]) ** 2) / 16
            target = np.exp(-away / 2)
            loss = -(target / target.sum() * np.log(heat)).sum()
        else:
            loss = 1000 * (np.square(np.asarray(place) - point) / SIDE**2).sum()
        losses[picture] += loss / (2 if picture == 0 else 1)
    np.testing.assert_allclose(found["place"], losses, rtol=1e-4)


def test_peaks_of_gaussians_are_found_between_cells():
    net = LandmarkNet(BODY, 2, form="heat_map")
    points = jnp.array([[[9.3, 11.6], [20.1, 14.2]]], jnp.float32)
    maps = jnp.log(net._gaussians(points, (8, 8), SIDE)).reshape(1, 2, 8, 8)
    found = net.points(jnp.moveaxis(maps, 1, -1), SIDE)
    np.testing.assert_allclose(found, points, atol=0.1)


def test_peaks_at_the_edge_stay_in_their_cell():
    net = LandmarkNet(BODY, 1, form="heat_map")
    maps = jnp.full((1, 8, 8, 1), -9.0).at[0, 0, 7, 0].set(9)
    np.testing.assert_allclose(net.points(maps, SIDE), [[[2.0, 30.0]]])
