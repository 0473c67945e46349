"""Classes of very different sizes: weights in the loss, and balanced sampling."""

import jax
import numpy as np
import pytest
from PIL import Image

from dlcore.errors import InputError
from dlcore.launch import jobs

JOB = jobs.task_class("image_classification")
CONFIG, _ = JOB.parts()
COUNTS = {"rare": 3, "some": 9, "usual": 48}
LABELS = np.repeat(range(3), list(COUNTS.values()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for part, counts in (("train", COUNTS), ("test", dict.fromkeys(COUNTS, 2))):
        for name, count in counts.items():
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(rng.integers(0, 256, (4, 4), np.uint8))
                image.save(folder / part / name / f"{number:02}.png")
    return folder


def prepared(folder, **options):
    task = JOB(CONFIG(model="mlp", data_path=str(folder), batch_size=60, **options))
    data = task.data()
    task.info = data.info
    return task, data


@pytest.mark.parametrize("augment", ["none", "mixup"])
@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ((), [1, 1, 1]),
        (("balanced",), [60 / 9, 60 / 27, 60 / 144]),
        (("rare:5", "usual:0.5"), [5, 1, 0.5]),
    ],
)
def test_the_loss_is_the_weighted_mean(folder, given, weights, augment):
    """sum w_y l / sum w_y, as PyTorch's cross_entropy(weight=); accuracy stays what it is."""
    task, data = prepared(folder, class_weights=given, augment=augment)
    batch = dict(next(data.train(0)), weight=np.float32([1] * 59 + [0]))
    variables = task.init(jax.random.key(0))
    key = jax.random.key(1)
    loss, aux = task.loss(variables["params"], {}, batch, key)
    mixed = task.augment(jax.random.split(key)[0], dict(batch))
    logits = np.asarray(task.forward(variables, mixed["image"])[0], np.float64)
    labels = np.asarray(mixed["label"])
    shares = np.eye(3)[labels] if labels.ndim == 1 else labels
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    weight = batch["weight"] * (shares @ weights)
    expected = (weight * -(shares * log_p).sum(1)).sum() / weight.sum()
    assert float(loss.compute()) == pytest.approx(expected, rel=1e-5)
    assert float(loss.weight) == pytest.approx(weight.sum(), rel=1e-5)
    right = (logits.argmax(1) == shares.argmax(1))[:-1]
    assert float(aux.metrics["accuracy"].compute()) == pytest.approx(right.mean())


def test_evaluations_do_not_weigh(folder):
    plain, data = prepared(folder)
    weighted, _ = prepared(folder, class_weights=("balanced",))
    variables = plain.init(jax.random.key(0))
    images = next(iter(data.test()))
    metrics = []
    for task in (plain, weighted):
        logits = task.logits(variables, images["image"])
        state = type("State", (), {"params": variables["params"], "model_state": {}})
        metrics.append(task.metrics(state, images))
        assert logits.shape == (60, 3)
    jax.tree.map(np.testing.assert_array_equal, *metrics)


def test_balanced_sampling_draws_each_class_as_often(folder):
    for sampling, counts in (("uniform", [3, 9, 48]), ("balanced", [20, 20, 20])):
        _, data = prepared(folder, sampling=sampling)
        batches = data.train(0)
        for _ in range(3):
            assert np.bincount(next(batches)["label"]).tolist() == pytest.approx(counts, abs=2)
    # Held-out training images are not drawn.
    _, data = prepared(folder, sampling="balanced", validation=0.5)
    kept = np.concatenate([next(data.train(step))["image"] for step in range(20)])
    held_out = {image.tobytes() for image in next(iter(data.validation()))["image"][:30]}
    assert len(held_out) == 30 and not held_out & {image.tobytes() for image in kept}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("rare:x",), "--class_weights=rare:x is neither balanced nor NAME:WEIGHT"),
        (("rare",), "is neither balanced nor"),
        (("rare:0",), "with a weight above 0"),
        (("rare:nan",), "with a weight above 0"),
        (("balanced", "rare:2"), "--class_weights=balanced is neither"),
        (("dog:2",), "unknown class 'dog'; choose one of: rare, some, usual"),
    ],
)
def test_weights_that_are_none(folder, given, message):
    with pytest.raises(InputError, match=message):
        prepared(folder, class_weights=given)
