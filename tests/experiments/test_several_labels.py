"""Pictures of any number of labels, from the table to the predictions."""

import csv
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.metrics
from in_process import run_here
from outcomes import assert_fails, summary
from PIL import Image

import dlcore
from dlcore.data import labels_of, load_images
from dlcore.errors import InputError
from dlcore.launch import jobs
from dlcore.train import evaluate
from dlcore.types import TrainState

JOB = jobs.task_class("image_classification")
CONFIG, _ = JOB.parts()
NAMES = ("left", "right", "top")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Pictures whose bright sides are their labels; some have none."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows = [["image", "labels", "split"]]
    for number in range(60):
        there = rng.random(3) < (0.6, 0.3, 0.2)
        pixels = rng.integers(0, 60, (6, 6)).astype(np.uint8)
        for bright, side in zip(there, (np.s_[:, :2], np.s_[:, 4:], np.s_[:2]), strict=True):
            pixels[side] += np.uint8(120 if bright else 0)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
        labels = [name for name, one in zip(NAMES, there, strict=True) if one]
        rows.append([f"{number:02}.png", "; ".join(labels), "test" if number % 4 == 0 else "train"])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "labels.csv"


@pytest.fixture
def common_flags(table):
    return [
        f"--data_path={table}", "--label_separator=;", "--model=mlp", "--augment=none",
        "--batch_size=20", "--steps=150", "--eval_every=100",
    ]  # fmt: skip


def prepared(table, **options):
    options = {"label_separator": ";", "augment": "none"} | options
    task = JOB(CONFIG(model="mlp", data_path=str(table), batch_size=20, **options))
    data = task.data()
    task.info = data.info
    return task, data


def test_from_the_table_to_predictions(run, capfd, table, tmp_path):
    process = run(f"--workdir={tmp_path}", "--positive_weights=balanced")
    assert process.returncode == 0, process.stderr
    assert "without a label, taken as of no class: " in process.stderr
    metrics = summary(tmp_path)["metrics"]
    assert {*metrics} == {"loss", "micro_f1", "macro_f1", "exact_match", "mean_average_precision"}
    trained, data = dlcore.load(tmp_path), load_images(data_path=table, label_separator=";")
    images, labels = data.test.arrays["image"], data.test.arrays["label"]
    probabilities = trained.predict(list(images))
    expected = sklearn.metrics.average_precision_score(labels, probabilities, average="macro")
    assert metrics["mean_average_precision"] == pytest.approx(expected, abs=1e-6)
    assert expected > 0.9
    score = sklearn.metrics.f1_score(labels, probabilities > 0.5, average="macro")
    assert metrics["macro_f1"] == pytest.approx(score, abs=1e-6)
    for threshold in (0.3, 0.999999):
        again = dlcore.load(tmp_path, threshold=threshold)
        row, likely = again.answers([images[0]])[0], probabilities[0]
        names = [NAMES[k] for k in np.argsort(-likely) if likely[k] > threshold]
        assert [label["label"] for label in row["labels"]] == names
        assert [label["probability"] for label in row["labels"]] == pytest.approx(
            sorted(likely[likely > threshold].tolist(), reverse=True)
        )
    target = tmp_path / "answers.csv"
    use = [f"--predict={table.parent}", f"--workdir={tmp_path}", f"--predict_to={target}"]
    assert run_here(capfd, "image_classification", use).returncode == 0
    with target.open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 60 and "labels" not in rows[0] and {*rows[0]} >= {"input", "label_2"}
    likely = trained.predict([row["input"] for row in rows])
    for row, found in zip(rows, likely, strict=True):
        there = {row[name] for name in row if name.startswith("label")} - {""}
        assert there == {NAMES[k] for k in np.flatnonzero(found > 0.5)}


def test_the_loss_is_the_mean_over_classes_of_what_is_weighed(table):
    task, data = prepared(table, positive_weights=("top:3", "left:0.5"), label_smoothing=0.2)
    batch = dict(next(data.train(0)), weight=np.float32([1] * 19 + [0]))
    variables = task.init(jax.random.key(0))
    loss, aux = task.loss(variables["params"], {}, batch, jax.random.key(1))
    logits = np.asarray(task.forward(variables, batch["image"])[0], np.float64)
    p, targets = 1 / (1 + np.exp(-logits)), 0.8 * batch["label"] + 0.1
    each = -(np.array([0.5, 1, 3]) * targets * np.log(p) + (1 - targets) * np.log(1 - p))
    assert float(loss.compute()) == pytest.approx(each[:19].mean(), rel=1e-5)
    assert float(loss.weight) == 19
    exact = ((p > 0.5) == batch["label"]).all(1)[:19].mean()
    assert float(aux.metrics["exact_match"].compute()) == pytest.approx(exact)


def test_balanced_positives_weigh_as_much_as_negatives(table):
    task, _ = prepared(table, positive_weights=("balanced",))
    labels = labels_of(load_images(data_path=table, label_separator=";").train)
    weights = np.asarray(task.labelling.weights)
    np.testing.assert_allclose(weights * labels.sum(0), (1 - labels).sum(0))


def test_mixed_pictures_have_shares_of_labels(table):
    task, data = prepared(table, augment="mixup")
    batch = next(data.train(0))
    mixed = task.augment(jax.random.key(0), dict(batch))
    share = (mixed["image"] - jnp.roll(batch["image"], 10, 0).astype(jnp.float32)).reshape(20, -1)
    of = batch["image"].astype(np.float32) - np.roll(batch["image"], 10, 0)
    share = np.asarray((share * of.reshape(20, -1)).sum(1) / (of**2).sum((1, 2, 3)))[:, None]
    labels = batch["label"]
    expected = share * labels + (1 - share) * np.roll(labels, 10, 0)
    np.testing.assert_allclose(mixed["label"], expected, atol=1e-5)
    variables = task.init(jax.random.key(0))
    loss, _ = task.loss(variables["params"], {}, dict(batch), jax.random.key(1))
    assert np.isfinite(loss.compute())


def test_padding_counts_nothing(table):
    task, data = prepared(table)
    variables = task.init(jax.random.key(0))
    state = TrainState.create(variables, optax.sgd(0.1), jax.random.key(0))
    batch = next(iter(data.test()))
    assert 0 < batch["weight"].sum() < 20
    whole = {name: array[batch["weight"] > 0] for name, array in batch.items()}
    batch["label"] = np.where(batch["weight"][:, None] > 0, batch["label"], 1)
    found, expected = (
        task.summarise(evaluate(lambda *args: (task.metrics(*args), None), state, [one]), "test")
        for one in (batch, whole)
    )
    assert found == pytest.approx(expected, rel=1e-5) and "mean_average_precision" in found


def test_classes_are_those_of_any_label(table):
    _, data = prepared(table, classes=("top",), examples=5)
    for step in range(3):
        assert (next(data.train(step))["label"][:, 2] == 1).all()


def test_weights_go_to_another_kind_of_labels(table):
    """A body that was trained on classes serves several labels."""
    task, _ = prepared(table)
    assert task.labelling.chance == pytest.approx(np.log(2))
    weighed, _ = prepared(table, positive_weights=("top:2",))
    assert weighed.labelling.chance is None
    assert dataclasses.replace(weighed.labelling, weights=None).chance == task.labelling.chance


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--class_weights=balanced"], "--label_separator=; does not read --class_weights"),
        (["--sampling=balanced"], "--label_separator=; does not read --sampling"),
        (["--top=2"], "--label_separator=; does not read --top"),
        (["--threshold=1.5"], "--threshold=1.5 is not a number from 0 to 1"),
        (["--positive_weights=up:2"], "unknown class 'up'; choose one of: left, right, top"),
        (["--positive_weights=top:0"], "--positive_weights=top:0 is neither balanced nor NAME"),
        (["--label_separator="], "the separator of labels is empty"),
    ],
)
def test_what_assumes_one_class_is_refused(run, flags, message):
    assert_fails(run(*flags), message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_separator": ";"}, "--label_separator is for --data_path, which is not given"),
        ({"threshold": 0.2}, "--threshold is for --label_separator, which is not given"),
        ({"positive_weights": ("a:2",)}, "--positive_weights is for --label_separator"),
    ],
)
def test_what_assumes_several_labels_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        CONFIG(**options)


def test_a_folder_has_one_class_for_each_picture(table):
    with pytest.raises(InputError, match="is a folder, whose images have one class each"):
        load_images(data_path=table.parent, label_separator=";")


def test_check(run):
    process = run("--check")
    assert process.returncode == 0, process.stdout
    assert "0.693" in process.stdout
