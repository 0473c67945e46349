"""Archives as small as the stock builders take them, prepared without TensorFlow and loaded."""

import functools
import gzip
import http.server
import logging
import os
import pathlib
import resource
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.utils import lazy_imports_utils
from tensorflow_datasets.datasets.imagenet2012 import imagenet_common
from tensorflow_datasets.image_classification import mnist
from tiny_archives import TEST, TRAIN, Example, write_cifar, write_imagenet, write_mnist

from dlcore.data import load_images
from dlcore.data.prepare import prepare
from dlcore.data.sources import Split
from dlcore.errors import InputError

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "prepare_data.py"
MNIST_FILES = (
    "t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz, "
    "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz"
)


@pytest.fixture(autouse=True)
def tiny_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock MNIST builders read fixed numbers of examples."""
    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", TRAIN)
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", TEST)


def contents(split: Split) -> list[Example]:
    rows = split.gather(np.arange(len(split)))
    return sorted(zip([image.tobytes() for image in rows["image"]], rows["label"], strict=True))


def test_mnist_and_fashion_mnist_from_archives_of_the_same_names(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed, name in enumerate(("mnist", "fashion_mnist")):
        written = write_mnist(tmp_path / name, seed)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "dlcore"):
            builder = prepare(name, data_dir=tmp_path / "data", archives=tmp_path / name)
        warnings = [r.getMessage() for r in caplog.records if r.name.startswith("dlcore")]
        assert len(warnings) == 4 and "is not the published archive" in warnings[0]
        assert builder.is_prepared() and builder.info.splits["train"].num_examples == TRAIN
        data = load_images(name, data_dir=tmp_path / "data")
        assert data.image_shape == (28, 28, 1)
        assert contents(data.train) == written["train"]
        assert contents(data.test) == written["test"]
    assert data.class_names[:2] == ("T-shirt/top", "Trouser")
    padded = load_images("mnist", data_dir=tmp_path / "data", image_size=32)
    assert (padded.train.gather(np.arange(TRAIN))["image"][:, [0, 1, 30, 31]] == 0).all()


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_from_its_archive(tmp_path: pathlib.Path, classes: int) -> None:
    written = write_cifar(tmp_path / "archives", classes)
    prepare(f"cifar{classes}", data_dir=tmp_path, archives=tmp_path / "archives")
    data = load_images(f"cifar{classes}", data_dir=tmp_path)
    assert data.image_shape == (32, 32, 3)
    assert data.class_names == tuple(f"class {number}" for number in range(classes))
    assert contents(data.train) == written["train"] and contents(data.test) == written["test"]


@pytest.mark.parametrize("spilling", [False, True])
def test_imagenet_from_its_archives(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, spilling: bool
) -> None:
    if spilling:
        # Splits above this size are sorted on disk, as the real one is.
        monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1)
    write_imagenet(tmp_path / "archives")
    builder = prepare("imagenet2012", data_dir=tmp_path, archives=tmp_path / "archives")
    assert {name: s.num_examples for name, s in builder.info.splits.items()} == {
        "train": 4,
        "validation": 3,
        "test": 3,
    }
    data = load_images("imagenet2012", data_dir=tmp_path, image_size=16, in_memory_bytes=0)
    assert data.image_shape == (16, 16, 3) and data.num_classes == 1000
    train = data.train.gather(np.arange(4))
    names = [data.class_names[label] for label in train["label"]]
    colours = {
        (name, *image[8, 8].tolist()) for name, image in zip(names, train["image"], strict=True)
    }
    assert sorted(names) == ["n01440764", "n01440764", "n01739381", "n02105855"]
    # JPEG moves flat colours by a level or two.
    expected = {
        ("n01440764", 200, 0, 0),
        ("n01440764", 90, 90, 90),
        ("n01739381", 255, 0, 0),
        ("n02105855", 0, 0, 200),
    }
    for want, got in zip(sorted(expected), sorted(colours), strict=True):
        assert want[0] == got[0] and np.abs(np.subtract(want[1:], got[1:])).max() <= 2

    with imagenet_labels().open() as file:
        first = [next(file).strip() for _ in range(3)]
    test = data.test.gather(np.arange(3))
    by_red = np.argsort(test["image"][:, 8, 8, 0])
    assert [data.class_names[label] for label in test["label"][by_red]] == first


def imagenet_labels() -> pathlib.Path:
    return pathlib.Path(tfds.core.tfds_path(imagenet_common._VALIDATION_LABELS_FNAME))


def test_what_is_prepared_is_left_alone(tmp_path: pathlib.Path) -> None:
    write_cifar(tmp_path / "archives", 10)
    prepare("cifar10", data_dir=tmp_path, archives=tmp_path / "archives")
    assert prepare("cifar10", data_dir=tmp_path).is_prepared()


def test_tensorflow_is_lent_to_tfds_only_while_preparing(tmp_path: pathlib.Path) -> None:
    write_cifar(tmp_path / "archives", 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
    try:
        prepare("cifar10", data_dir=tmp_path, archives=tmp_path / "archives")
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1000, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "tensorflow" not in sys.modules
    assert "_module" not in vars(lazy_imports_utils.tensorflow)
    assert not list((tmp_path).glob("tmp*")), "extracted archives are left behind"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist", f"lacks {MNIST_FILES}; mnist needs .* there, from https://storage"),
        ("cifar100", "lacks cifar-100-binary.tar.gz; cifar100 needs cifar-100-binary.tar.gz there"),
        ("imagenet2012", "lacks ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar; .* from https"),
    ],
)
def test_missing_archives_are_named(tmp_path: pathlib.Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(name, data_dir=tmp_path, archives=tmp_path / "nowhere")


def test_one_missing_archive_is_named(tmp_path: pathlib.Path) -> None:
    write_mnist(tmp_path, 0)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"lacks t10k-labels-idx1-ubyte.gz; mnist needs"):
        prepare("mnist", data_dir=tmp_path, archives=tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "not gzip", "too few"])
def test_damaged_archives(tmp_path: pathlib.Path, damage: str) -> None:
    write_mnist(tmp_path, 0)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    match damage:
        case "truncated":
            file.write_bytes(whole[: len(whole) // 2])
        case "not gzip":
            file.write_bytes(b"<html>not found</html>")
        case "too few":
            file.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    with pytest.raises(
        InputError, match="cannot prepare mnist from .*; check that its archives are"
    ) as error:
        prepare("mnist", data_dir=tmp_path / "data", archives=tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="'mnist' is not prepared"):
        load_images("mnist", data_dir=tmp_path / "data")


def test_imagenet_cannot_be_downloaded(tmp_path: pathlib.Path) -> None:
    message = "without an account; get ILSVRC2012_img_train.tar, .* place them in .*--archives"
    with pytest.raises(InputError, match=message):
        prepare("imagenet2012", data_dir=tmp_path)


def test_without_a_network_the_answer_comes_at_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: object, **options: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    message = f"cannot download mnist: https://.* out of reach .*no route.*; place {MNIST_FILES} in"
    with pytest.raises(InputError, match=message):
        prepare("mnist", data_dir=tmp_path)


def test_a_data_set_that_is_not_prepared_here(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="unknown data set 'mnits'; choose one of: cifar10, "):
        prepare("mnits", data_dir=tmp_path)


def test_a_data_dir_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    write_cifar(tmp_path, 10)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to .*; give a folder .* --data_dir"):
        prepare("cifar10", data_dir=tmp_path / "file" / "data", archives=tmp_path)


@pytest.fixture
def server(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A folder served over HTTP in the place of MNIST's published one, with its checksums."""
    folder = tmp_path / "served"
    write_mnist(folder, 5)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{httpd.server_port}/"
        published = {
            url + path.name: tfds.core.download.checksums.compute_url_info(path)
            for path in folder.iterdir()
        }
        monkeypatch.setattr(mnist.MNIST, "URL", url)
        known = mnist.MNIST.url_infos
        for name in list(known):
            monkeypatch.delitem(known, name)
        for name, info in published.items():
            monkeypatch.setitem(known, name, info)
        yield folder
        httpd.shutdown()


def test_download(tmp_path: pathlib.Path, server: pathlib.Path) -> None:
    prepare("mnist", data_dir=tmp_path)
    assert (
        contents(load_images("mnist", data_dir=tmp_path).train) == write_mnist(server, 5)["train"]
    )


def test_a_download_that_is_not_the_published_one(
    tmp_path: pathlib.Path, server: pathlib.Path
) -> None:
    write_mnist(server, 6)
    message = "cannot prepare mnist from the network: .*wrong checksum.*; try again, or place"
    with pytest.raises(InputError, match=message):
        prepare("mnist", data_dir=tmp_path)


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_script_finds_the_python_of_the_checkout(tmp_path: pathlib.Path) -> None:
    """A bare Python has none of the packages; the checkout here only notes what it is asked."""
    script = tmp_path / "scripts" / "prepare_data.py"
    python = tmp_path / ".venv" / "bin" / "python"
    for path in (script, python):
        path.parent.mkdir(parents=True)
    script.write_bytes(SCRIPT.read_bytes())
    (script.parent / "environment.sh").write_text("echo made for $extras\n")
    python.write_text('#!/bin/sh\necho "$PWD" "$@"\n')
    python.chmod(0o755)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-ISE", str(script), "mnist", "--data_dir=a b"],
        cwd=elsewhere,
        env={"PATH": os.environ["PATH"], "DLCORE_EXTRAS": "cuda"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"made for cuda\n{elsewhere} {script} mnist --data_dir=a b\n"


def test_the_script(tmp_path: pathlib.Path) -> None:
    write_cifar(tmp_path / "archives", 10)
    done = run_script("cifar10", f"--data_dir={tmp_path}", f"--archives={tmp_path / 'archives'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == (
        f"cifar10/3.0.2 is prepared in {tmp_path}/cifar10/3.0.2: 2 test, 10 train"
    )


@pytest.mark.slow
def test_the_script_on_bad_input(tmp_path: pathlib.Path) -> None:
    done = run_script("imagenet2012", f"--data_dir={tmp_path}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: imagenet2012 cannot be downloaded")
    assert done.stderr.count("\n") == 1
