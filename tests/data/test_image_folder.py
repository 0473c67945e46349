import pathlib

import numpy as np
import pytest
from PIL import Image

from dlcore.data import Arrays, ImageData, Loader, Records, load_images
from dlcore.errors import InputError

COLOURS = {"ant": (250, 0, 0), "bee": (0, 250, 0), "cat": (0, 0, 250)}


def write(path: pathlib.Path, colour: object = 9, size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path)


def write_classes(
    root: pathlib.Path, count: int, classes: tuple[str, ...] = tuple(COLOURS)
) -> None:
    for name in classes:
        for number in range(count):
            write(root / name / f"{number:03}.png", COLOURS[name])


def arrays(data: ImageData, split: str) -> Arrays:
    chosen = getattr(data, split)
    assert isinstance(chosen, Arrays)
    return chosen


@pytest.mark.parametrize("held_out", ["test", "validation", "val"])
def test_train_and_test_folders(tmp_path: pathlib.Path, held_out: str) -> None:
    write_classes(tmp_path / "train", 3)
    write_classes(tmp_path / held_out, 2, ("bee", "cat"))
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "ant" / ".DS_Store").write_text("x")
    data = load_images(data_path=tmp_path)
    assert data.class_names == ("ant", "bee", "cat") and data.num_classes == 3
    assert data.image_shape == (4, 6, 3)
    assert arrays(data, "train").arrays["label"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    test = arrays(data, "test").arrays
    assert test["label"].tolist() == [1, 1, 2, 2] and test["label"].dtype == np.int32
    assert test["image"].shape == (4, 4, 6, 3) and test["image"].dtype == np.uint8
    assert test["image"][:, 0, 0].tolist() == [[0, 250, 0]] * 2 + [[0, 0, 250]] * 2


def test_a_fixed_fifth_of_every_class_is_held_out(tmp_path: pathlib.Path) -> None:
    for label in range(8):
        for number in range(5):
            write(tmp_path / f"class {label}" / f"{number}.png", 10 * label + number)
    first, second = load_images(data_path=tmp_path), load_images(data_path=tmp_path)
    train, test = (
        {*arrays(first, split).arrays["image"][:, 0, 0, 0]} for split in ("train", "test")
    )
    assert len(train) == 32 and len(train | test) == 40
    assert arrays(first, "test").arrays["label"].tolist() == [*range(8)]
    for split in ("train", "test"):
        assert np.array_equal(
            arrays(first, split).arrays["image"], arrays(second, split).arrays["image"]
        )


def test_every_class_of_two_images_keeps_one_of_each(tmp_path: pathlib.Path) -> None:
    write_classes(tmp_path, 2)
    data = load_images(data_path=tmp_path)
    assert arrays(data, "train").arrays["label"].tolist() == [0, 1, 2]
    assert arrays(data, "test").arrays["label"].tolist() == [0, 1, 2]


def test_gray_unless_one_image_has_colour(tmp_path: pathlib.Path) -> None:
    for number in range(5):
        write(tmp_path / "a" / f"{number}.png")
    assert load_images(data_path=tmp_path).image_shape == (4, 6, 1)
    write(tmp_path / "b" / "0.png")
    write(tmp_path / "b" / "1.png", (1, 2, 3))
    assert load_images(data_path=tmp_path).image_shape == (4, 6, 3)
    assert load_images(data_path=tmp_path, image_size=8).image_shape == (8, 8, 3)


def test_sizes_that_differ_need_an_image_size(tmp_path: pathlib.Path) -> None:
    write_classes(tmp_path, 2)
    write(tmp_path / "cat" / "zz.png", COLOURS["cat"], size=(30, 20))
    with pytest.raises(
        InputError, match=r"zz.png is 20 x 30 where others are 4 x 6; give --image_"
    ):
        load_images(data_path=tmp_path)
    data = load_images(data_path=tmp_path, image_size=12)
    assert data.image_shape == (12, 12, 3)
    assert arrays(data, "train").arrays["image"].shape[1:] == (12, 12, 3)


def test_what_does_not_fit_in_memory_gives_the_same_batches(tmp_path: pathlib.Path) -> None:
    write_classes(tmp_path, 5)
    inside = load_images(data_path=tmp_path, in_memory_bytes=15 * 4 * 6 * 3)
    outside = load_images(data_path=tmp_path, in_memory_bytes=15 * 4 * 6 * 3 - 1)
    assert isinstance(inside.train, Arrays) and isinstance(outside.train, Records)
    got = Loader(outside.train, 4, seed=0).batches(7)
    for step in range(7, 11):
        expected, batch = Loader(inside.train, 4, seed=0).batch(step), next(got)
        assert expected.keys() == batch.keys() == {"image", "label", "weight"}
        assert all(np.array_equal(expected[name], batch[name]) for name in batch)
        assert all(expected[name].dtype == batch[name].dtype for name in batch)


def test_an_unreadable_image_is_named_even_if_read_late(tmp_path: pathlib.Path) -> None:
    write_classes(tmp_path, 5)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    message = r"cannot read image .*cat/notes.txt: .*; repair or remove it"
    for bytes_ in (0, 1 << 20):
        with pytest.raises(InputError, match=message):
            data = load_images(data_path=tmp_path, image_size=8, in_memory_bytes=bytes_)
            whole = Loader(data.train, len(data.train), seed=0).batches()
            next(whole)


def broken_folder(root: pathlib.Path, case: str) -> None:
    match case:
        case "missing":
            root.rmdir()
        case "flat":
            write(root / "0.png")
        case "class without images":
            write_classes(root, 2)
            (root / "dog").mkdir()
        case "single image":
            write_classes(root, 2)
            write(root / "dog" / "0.png")
        case "train alone":
            write_classes(root / "train", 2)
        case "class only in test":
            write_classes(root / "train", 2, ("ant",))
            write_classes(root / "test", 2)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "is not a folder; expected train/ and test/"),
        ("empty", "has no folders of classes; expected train/ and test/"),
        ("flat", "has no folders of classes; expected train/ and test/"),
        ("class without images", "dog has no images; add some or remove the folder"),
        ("single image", "dog has 1 image; a class needs 2 or more"),
        ("train alone", "has train/ but no test/, validation/ or val/"),
        ("class only in test", "classes bee, cat are in .*test but not in .*train; a class must"),
    ],
)
def test_folders_that_are_not_images_by_class(
    tmp_path: pathlib.Path, case: str, message: str
) -> None:
    broken_folder(tmp_path, case)
    with pytest.raises(InputError, match=message) as error:
        load_images(data_path=tmp_path)
    assert "\n" not in str(error.value)


def test_image_size_zero_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="image size 0 is not possible"):
        load_images(data_path=tmp_path, image_size=0)
