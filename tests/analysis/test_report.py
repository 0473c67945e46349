"""The report: what it counts, what it writes, and what it says when it cannot."""

import json
import struct

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from dlcore.analysis import plots
from dlcore.analysis.report import confusion_matrix, first_filters, write_report
from dlcore.errors import InputError

RANDOM = np.random.default_rng(0)


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


@pytest.fixture
def workdir(tmp_path):
    rows = [
        {"step": 1, "split": "train", "loss": 2.3, "accuracy": 0.1},
        {"step": 1, "split": "test", "loss": 2.2, "accuracy": 0.2},
        {"step": 2, "split": "train", "loss": None, "accuracy": 0.9},
        {"step": 3, "split": "train", "loss": 0.5, "accuracy": 0.95},
        {"step": 3, "split": "test", "loss": 0.6, "accuracy": 0.91},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = {
        "experiment": "digits <small>",
        "parameters": 61706,
        "final": {"accuracy": 0.91},
        "devices": ["cpu:0", "cpu:1"],
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    return tmp_path


def predictions(count=30, classes=4):
    return {
        "images": RANDOM.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8),
        "labels": RANDOM.integers(0, classes, count),
        "probabilities": RANDOM.dirichlet(np.ones(classes), count),
        "class_names": ["a", "b", "<c>", "d"][:classes],
    }


def test_confusion_matrix_equals_scikit_learns():
    labels, guesses = RANDOM.integers(0, 5, (2, 200))
    expected = sklearn_confusion_matrix(labels, guesses, labels=range(7))
    np.testing.assert_array_equal(confusion_matrix(labels, guesses, num_classes=7), expected)


@pytest.mark.parametrize("labels, guesses", [([0, 3], [0, 0]), ([0, 1], [-1, 0]), ([0], [0, 1])])
def test_confusion_matrix_refuses_what_does_not_fit(labels, guesses):
    with pytest.raises(ValueError):
        confusion_matrix(np.array(labels), np.array(guesses), num_classes=3)


def test_worst_mistakes_are_the_surest():
    labels = np.array([0, 1, 0, 1])
    first = np.array([0.9, 0.7, 0.4, 0.95])  # the probability of class 0: three are wrong
    order = plots.worst_mistakes(labels, np.stack([first, 1 - first], axis=1))
    assert order.tolist() == [3, 1, 2]


def test_first_filters():
    kernel = RANDOM.normal(size=(5, 5, 1, 6))
    deeper = RANDOM.normal(size=(5, 5, 6, 16))
    params = {"conv_1": {"kernel": deeper}, "conv_9": {"kernel": kernel}}
    np.testing.assert_array_equal(first_filters(params, (32, 32, 1)), kernel)
    dense = {"a": {"kernel": np.ones((10, 3))}, "b": {"kernel": RANDOM.normal(size=(64, 7))}}
    picture = first_filters(dense, (8, 8, 1))
    assert picture is not None and picture.shape == (8, 8, 1, 7)
    assert picture[2, 3, 0, 4] == dense["b"]["kernel"][2 * 8 + 3, 4]
    assert first_filters({"w": np.ones((3, 3))}, (8, 8, 1)) is None


def test_the_report_is_whole(workdir):
    page = write_report(workdir, **predictions(), filters=RANDOM.normal(size=(3, 3, 1, 6)))
    assert page == workdir / "report" / "index.html"
    text = page.read_text(encoding="utf-8")
    for name in ("curves.png", "confusion.png", "mistakes.png", "filters.png"):
        assert f'src="{name}"' in text
        width, height = png_size(page.parent / name)
        assert width > 300 and height > 100
    assert "digits &lt;small&gt;" in text and "<small>" not in text
    assert "61,706" in text and "final accuracy" in text and "cpu:0, cpu:1" in text
    assert "a gap of 4.00 points" in text


def test_a_second_report_replaces_the_first_and_filters_may_be_absent(workdir):
    write_report(workdir, **predictions())
    page = write_report(workdir, **predictions())
    assert "filters" not in page.read_text()


def test_without_mistakes_and_with_colour(tmp_path):
    images = RANDOM.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    plots.plot_mistakes(images, np.arange(4), np.eye(4), "abcd", tmp_path / "none.png")
    plots.plot_mistakes(images, np.arange(4), np.eye(4)[::-1], "abcd", tmp_path / "all.png")
    plots.plot_filters(RANDOM.normal(size=(3, 3, 3, 70)), tmp_path / "colour.png")
    for name in ("none.png", "all.png", "colour.png"):
        png_size(tmp_path / name)


@pytest.mark.parametrize("missing", ["metrics.jsonl", "summary.json"])
def test_a_missing_file_is_one_clear_line(workdir, missing):
    (workdir / missing).unlink()
    with pytest.raises(InputError, match="the folder of a run that has ended") as error:
        write_report(workdir, **predictions())
    assert missing in str(error.value) and "\n" not in str(error.value)


def test_a_report_that_cannot_be_written_is_one_clear_line(workdir):
    (workdir / "report").write_text("a file is in the way")
    with pytest.raises(InputError, match="choose another --workdir"):
        write_report(workdir, **predictions())
