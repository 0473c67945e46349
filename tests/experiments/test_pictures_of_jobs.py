"""Folders of pictures in jobs: what they say of them, and that predictions read as training did."""

import json
import os
import sys
import types

import numpy as np
import pytest
from PIL import Image

from dlcore.data import read_images
from dlcore.launch import info as infos
from dlcore.launch import jobs
from dlcore.launch.predictions import predict


@pytest.fixture
def folder(tmp_path):
    """Scans of 12 bits, upright and not; one is ink on nothing. Another class is empty."""
    rng = np.random.default_rng(0)
    tags = Image.Exif()
    tags[0x0112] = 8
    for part in ("train", "test"):
        (tmp_path / "data" / part / "empty").mkdir(parents=True)
        (tmp_path / "data" / part / "scans").mkdir()
        for number in range(3):
            scan = Image.fromarray(rng.integers(0, 4096, (6, 6), np.uint16))
            scan.save(tmp_path / "data" / part / "scans" / f"{number}.png", exif=tags)
        ink = Image.fromarray(rng.integers(0, 256, (6, 6, 2), np.uint8))
        ink.save(tmp_path / "data" / part / "scans" / "ink.png")
    return tmp_path / "data"


@pytest.mark.parametrize("job", ["image_classification", "autoencoder"])
def test_predictions_read_pictures_as_training_does(job, folder, tmp_path, monkeypatch, capsys):
    task_class = jobs.task_class(job)
    config_class, info_class = task_class.parts()
    options = {"model": "mlp", "allow_empty_classes": True} if job != "autoencoder" else {}
    if job == "autoencoder":
        for part in ("train", "test"):
            (folder / part / "empty").rmdir()
    config = config_class(data_path=str(folder), batch_size=4, **options)
    task = task_class(config)
    data = task.data()
    said = capsys.readouterr().err
    assert f"{folder}: 6 of 8 images of more than 8 bits, scaled to 8\n" in said
    assert f"{folder}: 6 of 8 images turned upright as their EXIF orientation says\n" in said
    assert f"{folder}: 2 of 8 images with transparency, put on white\n" in said
    assert ("classes without images: 2 (train/empty, test/empty)" in said) == bool(options)
    batch = next(iter(data.test()))
    # A run that comes back has what it wrote down.
    infos.write(tmp_path, job, data.info)
    task.info = infos.read(tmp_path, info_class)
    asked = []

    def ask(*given):
        asked.append(given)
        raise InterruptedError  # what the network would say does not matter

    monkeypatch.setattr(sys.modules[task_class.__module__], "read_images", ask)
    with pytest.raises(InterruptedError):
        task.predict(None, sorted((folder / "test" / "scans").iterdir()))
    read = read_images(*asked[0])
    np.testing.assert_array_equal(read, batch["image"])
    assert len(np.unique(read)) > 60


def test_names_that_are_no_utf_8_are_answered(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    Image.new("L", (2, 2)).save(name)
    task = types.SimpleNamespace(reads="images", answered_together=2, remark=lambda inputs: None)
    trained = types.SimpleNamespace(
        task=task, answers=lambda inputs: [{"class": "a"} for _ in inputs]
    )
    for form in ("jsonl", "csv"):
        predict(trained, str(tmp_path), str(tmp_path / f"out.{form}"))
        text = (tmp_path / f"out.{form}").read_text(encoding="utf-8")
        assert r"caf\udce9.png" in text
    row = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert row == {"input": name, "class": "a"}


def test_what_predictions_leave_out_is_counted(tmp_path, capsys):
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    task = types.SimpleNamespace(reads="images", answered_together=2, remark=lambda inputs: None)
    trained = types.SimpleNamespace(task=task, answers=lambda inputs: [{} for _ in inputs])
    predict(trained, str(tmp_path), "-")
    answered = capsys.readouterr()
    assert json.loads(answered.out) == {"input": str(tmp_path / "a.png")}
    assert f"2 files in {tmp_path} are not images and are left out" in answered.err
