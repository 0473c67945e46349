import io
import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import sklearn.model_selection
import tensorflow_datasets as tfds
from PIL import Image

from dlcore.data import Arrays, Loader, Records, load_images
from dlcore.data.builders.digits import Digits
from dlcore.data.catalogue import open_builder, prepared_builder
from dlcore.errors import InputError

# What each form of the data set below holds: its splits, with the label of every image.
FORMS: dict[str, dict[str, list[int]]] = {
    "plain": {"train": [0, 1, 1], "test": [1]},
    "validation": {"train": [0, 1], "validation": [0]},
    "unlabelled_test": {"train": [0, 1], "test": [-1], "validation": [1, 0]},
    "only_unlabelled": {"train": [0, 1], "test": [-1]},
    "no_test": {"train": [0, 1], "extra": [0]},
    "sizes": {"train": [0, 1], "test": [0]},
    "wrong_shape": {"train": [0, 1], "test": [0]},
    "one_size": {"train": [0, 1], "test": [0]},
    "no_label": {"train": [0], "test": [0]},
    "deep": {"train": [0], "test": [0]},
}


class Oddities(tfds.core.GeneratorBasedBuilder):
    """A tiny data set in every form that load_images must tell apart."""

    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in FORMS]

    def _info(self) -> Any:
        form = self.builder_config.name
        label = {
            "digit" if form == "no_label" else "label": tfds.features.ClassLabel(num_classes=2)
        }
        image = tfds.features.Image(
            shape=(None, None, 3) if form in ("sizes", "one_size") else (3, 5, 3),
            dtype=np.uint16 if form == "deep" else np.uint8,
            encoding_format="png",
        )
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"image": image, **label})
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        splits = FORMS[self.builder_config.name]
        return {split: self._generate_examples(labels) for split, labels in splits.items()}

    def _generate_examples(self, labels: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        form = self.builder_config.name
        for index, label in enumerate(labels):
            png = io.BytesIO()
            size = (5 + index, 3) if form in ("sizes", "wrong_shape") else (5, 3)
            Image.new("RGB", size, (index, label % 256, 0)).save(png, "png")
            yield (
                index,
                {"image": png.getvalue(), "digit" if form == "no_label" else "label": label},
            )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the digits and every form of the oddities, prepared."""
    path = tmp_path_factory.mktemp("prepared")
    load_images("digits", data_dir=path)
    for form in FORMS:
        Oddities(config=form, data_dir=path).download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            file_format="array_record",
        )
    return path


def pairs(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    return sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


def test_digits_are_scikit_learns(data_dir: pathlib.Path) -> None:
    data = load_images("digits", data_dir=data_dir)
    assert data.image_shape == (8, 8, 1) and data.class_names == tuple("0123456789")
    assert (len(data.train), len(data.test)) == (1500, 297)
    digits = sklearn.datasets.load_digits()
    train, test = sklearn.model_selection.train_test_split(
        np.arange(1797), test_size=297, random_state=0, stratify=digits.target
    )
    for split, rows in ((data.train, train), (data.test, test)):
        assert isinstance(split, Arrays)
        image, label = split.arrays["image"], split.arrays["label"]
        assert image.dtype == np.uint8 and label.dtype == np.int32 and image.max() == 255
        # The 17 levels come back exactly from the stored ones.
        levels = np.round(image[..., 0] * (16 / 255))
        assert pairs(levels, label) == pairs(digits.images[rows], digits.target[rows])


def test_digits_enlarged(data_dir: pathlib.Path) -> None:
    data = load_images("digits", data_dir=data_dir, image_size=32)
    assert data.image_shape == (32, 32, 1)
    assert data.train.gather(np.arange(2))["image"].shape == (2, 32, 32, 1)


def test_the_first_process_to_prepare_the_digits_wins(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_generators = Digits._split_generators

    def while_another_finishes(self: Digits, dl_manager: Any) -> Any:
        monkeypatch.setattr(Digits, "_split_generators", split_generators)
        assert len(load_images("digits", data_dir=tmp_path).train) == 1500
        return split_generators(self, dl_manager)

    monkeypatch.setattr(Digits, "_split_generators", while_another_finishes)
    assert len(load_images("digits", data_dir=tmp_path).train) == 1500
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_digits_in_a_place_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write data set 'digits' to .*--data_dir"):
        load_images("digits", data_dir=tmp_path / "file" / "data")


def test_a_fresh_process_prepares_digits_in_silence_without_jax(tmp_path: pathlib.Path) -> None:
    code = (
        "import sys, dlcore.data\n"
        f"dlcore.data.load_images('digits', data_dir={str(tmp_path)!r})\n"
        "assert not {'jax', 'tensorflow', 'grain'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def labels(split: Any) -> list[int]:
    return sorted(split.arrays["label"].tolist())


def test_names_with_configuration_and_version(data_dir: pathlib.Path) -> None:
    for name in ("oddities/plain", "oddities/plain:1.2.0", "oddities"):
        data = load_images(name, data_dir=data_dir)
        assert data.name == "oddities/plain/1.2.0"
        assert data.image_shape == (3, 5, 3) and data.class_names == ("0", "1")
        assert labels(data.train) == [0, 1, 1] and labels(data.test) == [1]


@pytest.mark.parametrize("form", ["validation", "unlabelled_test"])
def test_the_validation_split_stands_in_for_the_test_split(
    data_dir: pathlib.Path, form: str
) -> None:
    data = load_images(f"oddities/{form}", data_dir=data_dir)
    assert labels(data.test) == sorted(FORMS[form]["validation"])


def test_what_does_not_fit_is_read_when_gathered(data_dir: pathlib.Path) -> None:
    inside = load_images("digits", data_dir=data_dir)
    outside = load_images("digits", data_dir=data_dir, in_memory_bytes=1797 * 64 - 1)
    assert isinstance(outside.train, Records) and isinstance(outside.test, Records)
    batches = Loader(outside.train, 128, seed=4).batches(33)
    for step in (33, 34, 35):
        expected, batch = Loader(inside.train, 128, seed=4).batch(step), next(batches)
        assert all(np.array_equal(expected[name], batch[name]) for name in expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oddities/only_unlabelled", r"label -1 of image 0 of split 'test' of .* 0\.\.1; correct"),
        ("oddities/no_test", "has the splits extra, train; it needs train, and test or validation"),
        (
            "oddities/no_label",
            "no 8-bit 'image' with a class 'label'; its features are digit, imag",
        ),
        ("oddities/deep", "no 8-bit 'image'"),
        ("oddities/sizes", r"is 3 x \d where others are 3 x \d; give --image_size"),
        ("oddities/wrong_shape", "is 3 x 6 where others are 3 x 5; give --image_size"),
        ("oddities/round", "configurations of oddities: plain, .*; versions: 1.2.0"),
        ("mnist:9.9.9", "configurations of mnist: none; versions: 3.0.1"),
        ("mnits", "unknown data set 'mnits'; choose one of: .*digits, .*mnist"),
        ("hub:mnist", "data set 'hub:mnist' is not a name; give NAME, NAME/CONFIG or NAME:VERSION"),
        ("", "is not a name"),
        ("mnist", r"is not prepared in .*: dlcore prepare mnist --data_dir=/"),
        ("svhn_cropped", "is not prepared .*: tfds build .* svhn_cropped --data_dir=/"),
    ],
)
def test_data_sets_that_cannot_be_loaded(
    data_dir: pathlib.Path, caplog: pytest.LogCaptureFixture, name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_images(name, data_dir=data_dir)
    assert "\n" not in str(error.value) and not caplog.records


def test_what_is_wrong_with_every_image_shows_before_it_is_needed(data_dir: pathlib.Path) -> None:
    with pytest.raises(InputError, match="label -1"):
        load_images("oddities/only_unlabelled", data_dir=data_dir, in_memory_bytes=0)


def test_a_size_that_the_features_do_not_tell_is_read_from_the_images(
    data_dir: pathlib.Path,
) -> None:
    assert load_images("oddities/one_size", data_dir=data_dir).image_shape == (3, 5, 3)


def test_differing_sizes_load_with_an_image_size(data_dir: pathlib.Path) -> None:
    assert load_images("oddities/sizes", data_dir=data_dir, image_size=8).image_shape == (8, 8, 3)


def test_a_format_that_needs_tensorflow_is_refused(
    data_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(data_dir / "digits", tmp_path / "digits")
    info = tmp_path / "digits" / "1.0.0" / "dataset_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": "tfrecord"}))
    with pytest.raises(InputError, match="is stored as tfrecord, which needs TensorFlow; prepare"):
        prepared_builder("digits", tmp_path)


def test_opening_a_data_set_prepares_nothing(tmp_path: pathlib.Path) -> None:
    assert open_builder("digits", tmp_path).name == "digits"
    assert not list(tmp_path.iterdir())
