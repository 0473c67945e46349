"""Prepared data sets whose files are hostile or damaged."""

import json
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from dlcore.data.catalogue import prepared_builder
from dlcore.data.tfds import read_examples
from dlcore.errors import InputError

OWN = "tensorflow_datasets.core.features."
DICT, SEQUENCE = OWN + "features_dict.FeaturesDict", OWN + "sequence_feature.Sequence"
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("prepared")
    prepared_builder("digits", path)
    return path / "digits"


@pytest.fixture(params=["stranger", "digits:1.0.0"])
def name(request: pytest.FixtureRequest) -> str:
    """A data set that TFDS knows from its files alone, and one that it knows from its code too."""
    return request.param


@pytest.fixture
def folder(digits: pathlib.Path, tmp_path: pathlib.Path, name: str) -> pathlib.Path:
    """The folder of that data set, whose files a test changes."""
    title = name.partition(":")[0]
    path = tmp_path / title / "1.0.0"
    shutil.copytree(digits / "1.0.0", path)
    info = path / "dataset_info.json"
    info.write_text(info.read_text().replace('"name": "digits"', f'"name": "{title}"'))
    return path


def legacy(name: str, content: Any) -> dict[str, Any]:
    return {"type": name, "content": content}


def described(name: str, **content: Any) -> dict[str, Any]:
    return {"pythonClassName": name, **content}


def hostile(name: str) -> dict[str, Any]:
    """Descriptions of features, in each form that TFDS reads, in which a class has the name."""
    tensor = described(name, tensor={"dtype": "int64"})
    evil = {"python_class_name": name, "jsonFeature": {"json": "{}"}}
    pair = {"feature": legacy(name, {}), "length": None}
    return {
        "old form": legacy(name, {}),
        "old form with a message": {**legacy(name, "{}"), "proto_cls": "x"},
        "old form, in a dict": legacy(DICT, {"label": legacy(name, {})}),
        "old form, in a sequence": legacy(DICT, {"label": legacy(SEQUENCE, pair)}),
        "top": evil,
        "in a dict": described(DICT, featuresDict={"features": {"label": tensor}}),
        "in a sequence in a dict": described(
            DICT,
            featuresDict={
                "features": {"a": described(SEQUENCE, sequence={"feature": tensor, "length": 2})}
            },
        ),
    }


@pytest.mark.parametrize("form", hostile(""))
@pytest.mark.parametrize("place", ["features.json", "dataset_info.json"])
def test_no_module_that_a_data_set_names_is_imported(
    folder: pathlib.Path,
    name: str,
    form: str,
    place: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "modules" / "harm").mkdir(parents=True)
    (tmp_path / "modules" / "harm" / "__init__.py").write_text("")
    (tmp_path / "modules" / "harm" / "payload.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    features = hostile("harm.payload.F")[form]
    if place == "features.json":
        (folder / place).write_text(json.dumps(features))
    else:
        (folder / place).write_text(
            json.dumps({**json.loads((folder / place).read_text()), "features": features})
        )
    with pytest.raises(InputError) as error:
        prepared_builder(name, tmp_path)
    assert "\n" not in str(error.value)
    assert not {"harm", "harm.payload"} & {*sys.modules}
    if place == "features.json":
        assert "the class 'harm.payload.F', which is not TFDS's own" in str(error.value)


@pytest.mark.parametrize(
    "class_name",
    ["tensorflow_datasets.scripts.cli.main.F", "dlcore.data.prepare.F", "F", "os.system"],
)
def test_modules_that_are_at_hand_are_not_imported_either(
    folder: pathlib.Path, name: str, class_name: str, tmp_path: pathlib.Path
) -> None:
    (folder / "features.json").write_text(json.dumps(hostile(class_name)["in a dict"]))
    before = {*sys.modules}
    with pytest.raises(InputError, match=f"the class '{class_name}', which is not TFDS's own"):
        prepared_builder(name, tmp_path)
    assert {*sys.modules} == before


@pytest.mark.parametrize("place", ["features.json", "dataset_info.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"3",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({"version": 3, "pythonClassName": 3}).encode(),
        json.dumps(legacy(DICT, 3)).encode(),
        json.dumps(legacy(OWN + "feature.FeatureConnector", {})).encode(),
        json.dumps(described(OWN + "image_feature.Image")).encode(),
        json.dumps(described(DICT, jsonFeature={"json": "{"})).encode(),
    ],
    ids=range(13),
)
def test_damaged_descriptions_are_one_line(
    folder: pathlib.Path, name: str, place: str, content: bytes, tmp_path: pathlib.Path
) -> None:
    (folder / place).write_bytes(content)
    with pytest.raises(InputError, match="is damaged .*; prepare it again$") as error:
        prepared_builder(name, tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_an_intact_data_set_is_read_from_its_files(
    folder: pathlib.Path, name: str, tmp_path: pathlib.Path
) -> None:
    assert {*prepared_builder(name, tmp_path).info.features} == {"image", "label"}


class Beside(tfds.core.GeneratorBasedBuilder):
    """Texts with a picture beside each, which is PostScript."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        picture = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        features = {"text": tfds.features.Text(), "all": tfds.features.Sequence(picture)}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({**features, "picture": picture}),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples() for split in ("train", "test")}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        yield 0, {"text": "a", "picture": POSTSCRIPT, "all": [POSTSCRIPT]}


def test_features_that_a_job_does_not_read_are_not_decoded(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Beside(data_dir=tmp_path).download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        file_format="array_record",
    )
    monkeypatch.setattr(Image, "open", None)
    builder = prepared_builder("beside", tmp_path)
    assert [*read_examples(builder, "train", ["text"])] == [("a",)]
