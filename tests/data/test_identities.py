"""Pictures by identity, from folders and from TFDS's data sets."""

import io
import pathlib
import tarfile
import zipfile
from collections.abc import Iterable

import numpy as np
import pytest
from PIL import Image
from tensorflow_datasets.image_classification import omniglot
from tiny_archives import add

from dlcore.data import Records, labels_of, load_identities
from dlcore.data.builders import glyphs
from dlcore.data.prepare import prepare
from dlcore.errors import InputError


def png(level: int, size: tuple[int, int] = (4, 4), form: str = "png") -> bytes:
    file = io.BytesIO()
    Image.new("L", size, level).save(file, form)
    return file.getvalue()


def write(root: pathlib.Path, identities: Iterable[str], pictures: int = 2) -> pathlib.Path:
    """Writes pictures of one level each: 10 for each identity and 1 for each picture."""
    for number, name in enumerate(identities):
        (root / name).mkdir(parents=True)
        for picture in range(pictures):
            (root / name / f"{picture}.png").write_bytes(png(10 * number + picture))
    return root


LETTERS = ("Greek/alpha", "Greek/beta", "Latin/a", "Latin/b", "Latin/c", "Runes/f", "Runes/u")


def test_nested_folders_give_identities_and_groups(tmp_path: pathlib.Path) -> None:
    write(tmp_path, LETTERS)
    (tmp_path / "readme.txt").write_text("beside the groups", encoding="utf-8")
    (tmp_path / "Latin" / "empty").mkdir()
    data = load_identities(data_path=tmp_path, test_groups=["Runes"], validation_groups=["Greek"])
    assert data.identity_names == {
        "train": ("Latin/a", "Latin/b", "Latin/c"),
        "test": ("Runes/f", "Runes/u"),
        "validation": ("Greek/alpha", "Greek/beta"),
    }
    assert data.groups["train"] == ("Latin",) * 3 and data.groups["test"] == ("Runes",) * 2
    assert data.image_shape == (4, 4, 1) and data.second is data.second_name is None
    assert data.validation is not None
    for split, levels in (
        (data.train, [20, 21, 30, 31, 40, 41]),
        (data.test, [50, 51, 60, 61]),
        (data.validation, [0, 1, 10, 11]),
    ):
        examples = split.gather(np.arange(len(split)))
        assert examples["image"][:, 0, 0, 0].tolist() == levels
        assert examples["label"].tolist() == [i // 2 for i in range(len(levels))]
        assert examples["image"].dtype == np.uint8 and examples["label"].dtype == np.int32
    assert data.notes == (
        f"{tmp_path}: left out, beside folders: 1 (readme.txt)",
        f"{tmp_path}: left out, without pictures: 1 (Latin/empty)",
    )


def test_a_share_of_the_identities_is_held_out(tmp_path: pathlib.Path) -> None:
    names = [f"s{number:02}" for number in range(20)]
    write(tmp_path, names)
    data, again, other = (
        load_identities(data_path=tmp_path, validation=0.25, seed=seed) for seed in (0, 0, 1)
    )
    parts = data.identity_names
    assert {part: len(own) for part, own in parts.items()} == {
        "train": 12,
        "test": 4,
        "validation": 4,
    }
    assert sorted(sum(parts.values(), ())) == names and {*data.groups["train"]} == {""}
    assert again.identity_names == parts
    assert other.identity_names["test"] == parts["test"]
    assert other.identity_names["validation"] != parts["validation"]


def test_named_parts(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "train", ("a", "b"))
    write(tmp_path / "val", ("c", "d"))
    write(tmp_path / "more", ("e",))
    data = load_identities(data_path=tmp_path, in_memory_bytes=0)
    assert data.identity_names == {"train": ("a", "b"), "test": ("c", "d")}
    assert data.notes == (f"{tmp_path}: left out, beside train/ and val/: 1 (more)",)
    assert isinstance(data.test, Records)
    assert labels_of(data.test).tolist() == [0, 0, 1, 1]
    assert data.test.gather(np.array([3]))["image"].max() == 11
    with pytest.raises(InputError, match="has its own part to test on"):
        load_identities(data_path=tmp_path, test_groups=["x"])
    write(tmp_path / "val", ("b",))
    with pytest.raises(InputError, match=r"1 identities in both train and test \(b\)"):
        load_identities(data_path=tmp_path)


def test_an_identity_of_one_picture_is_left_out_of_training(tmp_path: pathlib.Path) -> None:
    for part in ("train", "test"):
        write(tmp_path / part, [f"{part}{number}" for number in range(3)])
        (tmp_path / part / f"{part}1" / "1.png").unlink()
    data = load_identities(data_path=tmp_path)
    assert data.identity_names["train"] == ("train0", "train2")
    assert labels_of(data.train).tolist() == [0, 0, 1, 1]
    assert data.identity_names["test"] == ("test0", "test1", "test2")
    assert data.notes == (
        f"{tmp_path}: identities of one picture in train: 1, left out",
        f"{tmp_path}: identities of one picture in test: 1, they are in no pair of their own",
    )
    for name in ("train0", "train2"):
        (tmp_path / "train" / name / "1.png").unlink()
    with pytest.raises(InputError, match="has 3 identities in train, 0 of them with two or more"):
        load_identities(data_path=tmp_path)


def test_pictures_are_fitted_into_squares(tmp_path: pathlib.Path) -> None:
    write(tmp_path, [f"s{number}" for number in range(5)])
    (tmp_path / "s3" / "0.png").write_bytes(png(9, (6, 4)))
    (tmp_path / "s3" / "1.png").write_bytes(png(8, (3, 3), "ppm"))
    assert load_identities(data_path=tmp_path, image_size=8).image_shape == (8, 8, 1)
    with pytest.raises(InputError, match="give --image_size to fit all"):
        load_identities(data_path=tmp_path)
    with pytest.raises(InputError, match="image size 0 is not possible"):
        load_identities(data_path=tmp_path, image_size=0)
    (tmp_path / "s2" / "0.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"cannot read image .*s2/0.png: it is damaged"):
        load_identities(data_path=tmp_path, image_size=8)


def test_folders_without_identities_are_refused(tmp_path: pathlib.Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "0.png").write_bytes(png(0))
    with pytest.raises(InputError, match=r"flat has no folders with pictures; expected a folder"):
        load_identities(data_path=flat)
    with pytest.raises(InputError, match="none is not a folder"):
        load_identities(data_path=tmp_path / "none")
    with pytest.raises(InputError, match="the data path is empty"):
        load_identities(data_path="")
    few = write(tmp_path / "few", ("x/a", "x/b", "y/c"))
    with pytest.raises(InputError, match="has 3 identities to train on, and 2 of them are to be"):
        load_identities(data_path=few)
    with pytest.raises(InputError, match="group of .*few.*'z'"):
        load_identities(data_path=few, test_groups=["z"])
    write(tmp_path / "half" / "train", ("a", "b"))
    with pytest.raises(InputError, match=r"has train/ but no test/"):
        load_identities(data_path=tmp_path / "half")


def test_omniglot_from_its_archives(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The stock builder counts what it reads.
    monkeypatch.setattr(omniglot, "_NUM_ALPHABETS", 3)
    monkeypatch.setattr(omniglot, "_NUM_CLASSES", 6)
    drawn: dict[str, list[int]] = {"background": [], "evaluation": []}
    for name, alphabets in (
        ("background", {"Greek": [1, 2], "Latin": [3, 4]}),
        ("background_small1", {"Greek": [1, 2]}),
        ("background_small2", {"Latin": [3, 4]}),
        ("evaluation", {"Runes": [5, 6]}),
    ):
        root = f"images_{name}"
        with zipfile.ZipFile(tmp_path / f"{root}.zip", "w") as file:
            for alphabet, numbers in alphabets.items():
                for place, number in enumerate(numbers, 1):
                    for drawer in (1, 2):
                        level = 10 * number + drawer
                        path = f"{root}/{alphabet}/character{place:02}/{number:04}_{drawer:02}.png"
                        file.writestr(path, png(level, (105, 105)))
                        drawn.setdefault(name, []).append(level)
    prepare("omniglot", data_dir=tmp_path, archives=tmp_path)
    data = load_identities("omniglot", data_dir=tmp_path, image_size=15)
    assert data.identity_names == {
        "train": ("Greek_0", "Greek_1", "Latin_0", "Latin_1"),
        "test": ("Runes_0", "Runes_1"),
    }
    assert data.groups["train"] == ("Greek", "Greek", "Latin", "Latin")
    assert data.image_shape == (15, 15, 3)
    for split, name in ((data.train, "background"), (data.test, "evaluation")):
        images = split.gather(np.arange(len(split)))["image"]
        assert sorted(images[:, 7, 7, 0].tolist()) == drawn[name]


def test_lfw_from_its_archive(tmp_path: pathlib.Path) -> None:
    people = {f"Person_{number}": 1 if number == 3 else 2 for number in range(10)}
    with tarfile.open(tmp_path / "lfw.tgz", "w:gz") as tar:
        for number, (name, count) in enumerate(people.items()):
            for picture in range(1, count + 1):
                image = png(20 * number, (250, 250), "jpeg")
                add(tar, f"lfw/{name}/{name}_{picture:04}.jpg", image)
    prepare("lfw", data_dir=tmp_path, archives=tmp_path)
    data = load_identities("lfw", data_dir=tmp_path, image_size=10)
    names = data.identity_names
    left_out = 0 if "Person_3" in names["test"] else 1
    assert len(names["test"]) == 2 and len(names["train"]) == 8 - left_out
    for part, split in (("train", data.train), ("test", data.test)):
        examples = split.gather(np.arange(len(split)))
        levels = examples["image"][:, 5, 5, 0].astype(int)
        numbers = [int(names[part][label][-1]) for label in examples["label"]]
        assert np.abs(levels - 20 * np.array(numbers)).max() <= 2


def test_the_embedded_glyphs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    characters = [
        glyphs.Character(code, rng.integers(0, 256, (6, 32, 32), np.uint8), tuple(range(6)))
        for code in (*range(0x41, 0x4B), *range(0x3B1, 0x3BB), *range(0x430, 0x434))
    ]
    monkeypatch.setattr(glyphs, "distinct_characters", lambda: (characters, {}))
    data = load_identities(data_dir=tmp_path)
    assert data.image_shape == (32, 32, 1) and data.second_name == "unseen_scripts"
    assert {part: len(own) for part, own in data.identity_names.items()} == {
        "train": 16,
        "test": 4,
        "second": 4,
    }
    assert {*data.groups["train"]} == {"Greek", "Latin"} and {*data.groups["second"]} == {
        "Cyrillic"
    }
    assert data.second is not None
    for part, split in (("train", data.train), ("test", data.test), ("second", data.second)):
        examples = split.gather(np.arange(len(split)))
        for image, label in zip(examples["image"], examples["label"], strict=True):
            code = int(data.identity_names[part][label][2:6], 16)
            own = next(c for c in characters if c.code == code)
            assert (own.pictures == image[..., 0]).all((1, 2)).any()
