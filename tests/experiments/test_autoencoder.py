"""A job of one's own in one short file has all that a run has."""

import json

import jax
import numpy as np
import pytest
from outcomes import summary
from PIL import Image

import dlcore
from dlcore import launch
from dlcore.data import load_images
from dlcore.launch import jobs
from dlcore.models.cnn.autoencoder import AUTOENCODERS

JOB = jobs.task_class("autoencoder")
CONFIG, _ = JOB.parts()


@pytest.fixture
def job():
    return "autoencoder"


@pytest.fixture
def common_flags(data_dir):
    return [f"--data_dir={data_dir}", "--batch_size=32", "--hidden=64"]


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """The outcome and the folder of a run that was launched without a command line."""
    folder = tmp_path_factory.mktemp("run")
    config = CONFIG(
        steps=300, batch_size=32, hidden=64, data_dir=str(data_dir), workdir=str(folder)
    )
    return launch.run(JOB(config)), folder


@pytest.fixture(scope="module")
def images(data_dir):
    return load_images("digits", data_dir=data_dir)


def test_it_is_short():
    assert len((jobs.folder() / "autoencoder.py").read_text().splitlines()) <= 70


def test_it_learns_more_than_the_mean_image(trained, images):
    outcome, folder = trained
    train, test = (split.arrays["image"] / 255 for split in (images.train, images.test))
    of_the_mean = ((test - train.mean(0)) ** 2).mean()
    assert outcome.metrics["loss"] < 0.35 * of_the_mean
    assert summary(folder)["metrics"]["loss"] == outcome.metrics["loss"]


def test_it_comes_back_and_draws_images_again(trained, images):
    outcome, folder = trained
    test = images.test.arrays["image"]
    loaded = dlcore.load(folder)
    drawn = loaded.predict(test)
    assert drawn.shape == test.shape and drawn.dtype == np.uint8
    error = ((drawn / 255 - test / 255) ** 2).mean()
    # Pixels are cut to 0..255, which can only help, and to whole numbers.
    assert 0.8 * outcome.metrics["loss"] < error < 1.02 * outcome.metrics["loss"]
    assert loaded.answers(test[:2])[1] == {"output": drawn[1].tolist()}


def test_smoke_with_a_report(run, tmp_path):
    process = run("--smoke", "--precision=bfloat16", f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert summary(tmp_path)["step"] == 2
    assert "images.png" in (tmp_path / "report" / "index.html").read_text()
    with Image.open(tmp_path / "report" / "images.png") as picture:
        assert picture.width > 500


def test_the_convolutional_net_restores_every_size():
    for size in ((8, 8), (7, 10), (1, 3)):
        images = np.zeros((2, *size, 3), np.float32)
        net = AUTOENCODERS["convolutional"](4, 6)
        assert net.init_with_output(jax.random.key(0), images)[0].shape == images.shape


@pytest.mark.parametrize("model", ["dense", "convolutional"])
def test_the_checks_pass(run, model):
    process = run("--check", f"--model={model}", "--hidden=16")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "ok    gradients" in process.stdout and "FAIL" not in process.stdout


def test_predictions_of_files(run, trained, tmp_path, images):
    _, folder = trained
    (tmp_path / "in").mkdir()
    for number in range(3):
        pixels = images.test.arrays["image"][number, ..., 0]
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
    target = tmp_path / "out.jsonl"
    process = run(f"--predict={tmp_path / 'in'}", f"--predict_to={target}", f"--workdir={folder}")
    assert process.returncode == 0, process.stderr
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    drawn = dlcore.load(folder).predict(images.test.arrays["image"][:3])
    np.testing.assert_array_equal([row["output"] for row in rows], drawn)


def metrics(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{name: x for name, x in json.loads(line).items() if name != "split"} for line in lines]


def test_layouts_compute_what_jit_does_and_a_run_continues(run, tmp_path):
    flags = ("--log_every=1", "--schedule=constant")
    layouts = {
        "jit": (),
        "pmap": ("--layout=pmap",),
        "mesh": ("--layout=mesh", "--mesh=data=2,fsdp=2"),
    }
    for name, more in layouts.items():
        process = run("--steps=4", *flags, *more, f"--workdir={tmp_path / name}")
        assert process.returncode == 0, process.stderr
    for name in ("pmap", "mesh"):
        for one, other in zip(metrics(tmp_path / "jit"), metrics(tmp_path / name), strict=True):
            assert one == pytest.approx(other, rel=1e-5)
    process = run("--steps=6", *flags, "--resume=must", f"--workdir={tmp_path / 'mesh'}")
    assert process.returncode == 0 and "from step 4" in process.stderr, process.stderr
    assert summary(tmp_path / "mesh")["step"] == 6


def test_plan(run):
    process = run("--plan", "--devices=2", devices=1)
    assert process.returncode == 0, process.stderr
    assert "Plan of one step on 2 devices" in process.stdout
