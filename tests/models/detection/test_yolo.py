"""YOLO's losses and detections against plain loops over cells and objects."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore import boxes as geometry
from dlcore.models.detection.body import make_body
from dlcore.models.detection.detector import Decoding, objects_of
from dlcore.models.detection.yolo import YOLOv1, YOLOv2

SIDE, CLASSES = 32, 3
SHAPES = ((6.0, 6.0), (16.0, 8.0))
BODY, _ = make_body("darknet_small", (8,), (SIDE, SIDE, 3), width=1 / 24)
# Several objects, one of them twice in the place of another; nothing; a crowd and a difficult one.
BOXES = np.zeros((3, 4, 4), np.float32)
BOXES[0] = [[2, 3, 9, 9], [10, 13, 26, 21], [11, 13, 27, 22], [24, 24, 31, 30]]
BOXES[2] = [[0, 0, 20, 20], [4, 20, 12, 28], [20, 4, 30, 14], [0, 0, 0, 0]]
MASK = np.array([[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0]], bool)
BATCH = {
    "boxes": BOXES,
    "boxes_mask": MASK,
    "labels": np.array([[0, 1, 2, 1], [0, 0, 0, 0], [0, 1, 2, 0]], np.int32),
    "crowd": np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], bool),
    "difficult": np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]], bool),
}
PARTS = ("place", "object", "background", "class")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cross_entropy(logit, target):
    return -(target * np.log(sigmoid(logit)) + (1 - target) * np.log(1 - sigmoid(logit)))


def class_loss(logits, label):
    return np.log(np.exp(logits).sum()) - logits[label]


def shape_iou(a, b):
    shared = min(a[0], b[0]) * min(a[1], b[1])
    return shared / (a[0] * a[1] + b[0] * b[1] - shared)


def objects(picture):
    """(box, label) of those that are to be found, and the boxes of all and of crowds."""
    rows = np.flatnonzero(MASK[picture])
    ignored = BATCH["crowd"][picture] | BATCH["difficult"][picture]
    real = [(BOXES[picture, n], BATCH["labels"][picture, n]) for n in rows if not ignored[n]]
    return (
        real,
        [BOXES[picture, n] for n in rows],
        [BOXES[picture, n] for n in rows if BATCH["crowd"][picture, n]],
    )


def middle(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def plain_v2(outputs, picture, net):
    """The terms of the loss of one picture, by loops."""
    grid, found = outputs.shape[0], dict.fromkeys(PARTS, 0.0)
    real, everything, crowds = objects(picture)

    def box(i, j, a):
        t = outputs[i, j, a, 1:5]
        y, x = (i + sigmoid(t[0])) * 8, (j + sigmoid(t[1])) * 8
        h, w = SHAPES[a][0] * np.exp(t[2]), SHAPES[a][1] * np.exp(t[3])
        return np.array([y - h / 2, x - w / 2, y + h / 2, x + w / 2])

    owners = {}
    for b, label in real:
        (y, x), size = middle(b), (b[2] - b[0], b[3] - b[1])
        anchor = max(range(len(SHAPES)), key=lambda a: shape_iou(size, SHAPES[a]))
        owners.setdefault((int(y // 8), int(x // 8), anchor), (b, label))
    for i in range(grid):
        for j in range(grid):
            for a in range(len(SHAPES)):
                says, guess = outputs[i, j, a], box(i, j, a)
                if (i, j, a) in owners:
                    b, label = owners[i, j, a]
                    target = geometry.iou(guess, b)
                    if net.box_loss == "squares":
                        y, x = middle(b)
                        errors = [
                            sigmoid(says[1]) - (y / 8 - i),
                            sigmoid(says[2]) - (x / 8 - j),
                            says[3] - np.log((b[2] - b[0]) / SHAPES[a][0]),
                            says[4] - np.log((b[3] - b[1]) / SHAPES[a][1]),
                        ]
                        share = geometry.area(b) / SIDE**2
                        wrong = (2 - share) * np.square(errors).sum()
                    else:
                        wrong = 1 - geometry.OVERLAPS[net.box_loss](guess, b)
                    found["place"] += net.box_weight * wrong
                    found["class"] += class_loss(says[5:], label)
                    name, weight = "object", net.object_weight
                else:
                    target = 0.0
                    if any(geometry.iou(guess, b) > 0.6 for b in everything):
                        continue
                    inside = [geometry.intersection(guess, b) for b in crowds]
                    if any(part > 0.6 * geometry.area(guess) for part in inside):
                        continue
                    name, weight = "background", net.background_weight
                focal = abs(target - sigmoid(says[0])) ** net.focal
                found[name] += weight * focal * cross_entropy(says[0], target)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"box_loss": "ciou", "box_weight": 3.0, "background_weight": 0.5, "focal": 2.0},
    ],
    ids=["squares", "ciou, focal"],
)
def test_the_loss_of_v2_is_that_of_plain_loops(options):
    net = YOLOv2(BODY, CLASSES, SHAPES, 8, **options)
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(3, 4, 4, 2, 5 + CLASSES)).astype(np.float32)
    # One that finds an object of another's, one that lies in the crowd.
    outputs[0, 0, 1, 0] = [2, 1.5, -3, 0, 0, 0, 0, 0]
    outputs[2, 1, 1, 0] = [2, 0, 0, 0, 0, 0, 0, 0]
    found = jax.jit(lambda x: net.losses_of(x, objects_of(BATCH), SIDE))(outputs)
    for picture in range(3):
        expected = plain_v2(outputs[picture].astype(np.float64), picture, net)
        for part in PARTS:
            np.testing.assert_allclose(
                found[part][picture], expected[part], rtol=2e-5, err_msg=part
            )
    assert found["background"][1] > 0 == found["object"][1] == found["place"][1]


def plain_v1(outputs, picture, net):
    grid, width, k = net.grid, SIDE / net.grid, net.predictors
    found = dict.fromkeys(PARTS, 0.0)
    real, _, _ = objects(picture)
    ignored = MASK[picture] & (BATCH["crowd"][picture] | BATCH["difficult"][picture])

    def box(i, j, b):
        y, x, h, w = outputs[i, j, 5 * b + 1 : 5 * b + 5]
        y, x, h, w = (i + y) * width, (j + x) * width, h**2 * SIDE, w**2 * SIDE
        return np.array([y - h / 2, x - w / 2, y + h / 2, x + w / 2])

    owners = {}
    for b, label in real:
        y, x = middle(b)
        owners.setdefault((int(y // width), int(x // width)), (b, label))
    for i in range(grid):
        for j in range(grid):
            overlaps = [0.0] * k
            if (i, j) in owners:
                b, label = owners[i, j]
                overlaps = [geometry.iou(box(i, j, n), b) for n in range(k)]
                best = int(np.argmax(overlaps))
                y, x = middle(b)
                sides = np.sqrt([(b[2] - b[0]) / SIDE, (b[3] - b[1]) / SIDE])
                wanted = [y / width - i, x / width - j, *sides]
                errors = outputs[i, j, 5 * best + 1 : 5 * best + 5] - wanted
                found["place"] += net.box_weight * np.square(errors).sum()
                found["class"] += np.square(outputs[i, j, 5 * k :] - np.eye(CLASSES)[label]).sum()
            for n in range(k):
                confidence = outputs[i, j, 5 * n]
                if (i, j) in owners and n == best:
                    found["object"] += (confidence - overlaps[n]) ** 2
                    continue
                y, x = (i + 0.5) * width, (j + 0.5) * width
                b = BOXES[picture][ignored]
                if ((b[:, 0] <= y) & (y < b[:, 2]) & (b[:, 1] <= x) & (x < b[:, 3])).any():
                    continue
                found["background"] += net.background_weight * confidence**2
    return found


def test_the_loss_of_v1_is_that_of_plain_loops():
    net = YOLOv1(BODY, CLASSES, grid=5, predictors=2)
    rng = np.random.default_rng(1)
    outputs = rng.uniform(0, 1, size=(3, 5, 5, 10 + CLASSES)).astype(np.float32)
    found = jax.jit(lambda x: net.losses_of(x, objects_of(BATCH), SIDE))(outputs)
    for picture in range(3):
        expected = plain_v1(outputs[picture].astype(np.float64), picture, net)
        for part in PARTS:
            np.testing.assert_allclose(
                found[part][picture], expected[part], rtol=2e-5, err_msg=part
            )
    assert found["background"][1] > 0 == found["object"][1] == found["class"][1]


def test_v2_reads_the_boxes_that_it_was_asked_to_learn():
    """Outputs that are exact are decoded to the objects, and have no loss of place."""
    net = YOLOv2(BODY, CLASSES, SHAPES, 8, decoding=Decoding(score_threshold=0.5, most=4))
    batch = {name: value[:1, [0, 1, 3]] for name, value in BATCH.items()}
    outputs = np.full((1, 4, 4, 2, 5 + CLASSES), -9, np.float32)
    _, cells, anchor = net.places(jnp.asarray(batch["boxes"]), (4, 4))
    for box, label, (i, j), a in zip(
        batch["boxes"][0],
        batch["labels"][0],
        np.asarray(cells[0]),
        np.asarray(anchor[0]),
        strict=True,
    ):
        y, x = middle(box)
        offsets = np.array([y / 8 - i, x / 8 - j])
        says = outputs[0, i, j, a]
        says[0], says[1:3] = 9 - label, np.log(offsets / (1 - offsets))
        says[3:5] = np.log((box[2:] - box[:2]) / SHAPES[a])
        says[5 + label] = 9
    losses, found = jax.jit(
        lambda x: (net.losses_of(x, objects_of(batch), SIDE), net.decode(x, SIDE))
    )(outputs)
    assert losses["place"][0] < 1e-8 and losses["class"][0] < 1e-4
    assert found.mask[0].tolist() == [True, True, True, False]
    np.testing.assert_array_equal(found.labels[0, :3], np.sort(batch["labels"][0]))
    np.testing.assert_allclose(found.boxes[0, 0], batch["boxes"][0, 0], atol=1e-4)


def test_v1_reads_the_boxes_that_it_was_asked_to_learn():
    net = YOLOv1(BODY, CLASSES, grid=4, decoding=Decoding(score_threshold=0.5, most=2))
    outputs = np.zeros((1, 4, 4, 10 + CLASSES), np.float32)
    box = BOXES[0, 1]
    (y, x), sides = middle(box), np.sqrt((box[2:] - box[:2]) / SIDE)
    outputs[0, 2, 2, 5:10] = [0.9, y / 8 - 2, x / 8 - 2, *sides]
    outputs[0, 2, 2, 10 + 1] = 1
    found = net.decode(jnp.asarray(outputs), SIDE)
    assert found.mask[0].tolist() == [True, False] and found.labels[0, 0] == 1
    np.testing.assert_allclose(found.boxes[0, 0], box, atol=1e-4)


def made_v2():
    """A network that reads two maps, those, three pictures and its first variables."""
    body, maps = make_body("darknet_small", (4, 8), (SIDE, SIDE, 3), width=1 / 24)
    net = YOLOv2(body, CLASSES, SHAPES, 8, features=8, passthrough=3)
    images = jax.random.normal(jax.random.key(0), (3, SIDE, SIDE, 3))
    variables = jax.jit(net.init)(jax.random.key(1), images)
    return net, maps, images, variables


def test_v2_takes_pictures_of_other_sides():
    """The same parameters; detections inside of one compiled call."""
    net, maps, images, variables = made_v2()
    larger = jax.eval_shape(net.apply, variables, jnp.zeros((1, 48, 40, 3)))[0]
    assert larger.shape == (1, 6, 5, 2, 5 + CLASSES)
    kernel = variables["params"]["head"]["conv"]["kernel"]
    assert kernel.shape == (3, 3, 4 * 3 + maps[1].shape[-1], 8)
    found = jax.jit(lambda v, x: net.apply(v, x, {}, method="detect"))(variables, images)
    assert found.boxes.shape == (3, 100, 4) and not np.isnan(found.boxes).any()


@pytest.mark.slow
def test_v2_learns():
    net, _, images, variables = made_v2()
    stats = {"batch_stats": variables["batch_stats"]}

    tx = optax.adam(1e-2)

    @jax.jit
    def step(params, moments):
        def loss(params):
            parts, _ = net.apply(
                {"params": params, **stats},
                images,
                BATCH,
                jax.random.key(0),
                method="losses",
                mutable=["batch_stats"],
            )
            return sum(part.sum() for part in parts.values())

        value, gradient = jax.value_and_grad(loss)(params)
        updates, moments = tx.update(gradient, moments)
        return optax.apply_updates(params, updates), moments, value

    params, moments, first = step(variables["params"], tx.init(variables["params"]))
    for _ in range(20):
        params, moments, last = step(params, moments)
    assert last < 0.7 * first
