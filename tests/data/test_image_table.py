import pathlib

import numpy as np
import pytest
from PIL import Image

from dlcore.data import load_images
from dlcore.data.image_folder import hold_out_labels
from dlcore.data.image_table import read_table
from dlcore.data.pictures import StoredImage
from dlcore.errors import InputError

LABELS = {f"pictures/{n}.png": ("cat", "dog, small")[n % 2] for n in range(8)}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "pictures").mkdir()
    for number, name in enumerate(LABELS):
        Image.new("L", (3, 2), 10 * number).save(tmp_path / name)
    return tmp_path


def write(folder: pathlib.Path, text: str, name: str = "labels.csv") -> pathlib.Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def found(path: pathlib.Path) -> dict[str, str]:
    table = read_table(path)
    return {
        str(pathlib.Path(image.name).relative_to(path.parent)): table.class_names[image.label]
        for image in [*table.train, *table.test]
    }


@pytest.mark.parametrize(
    "head",
    ["", "image,label\n", "id,breed\n", "\ufeffFile,Class\r\n"],
)
def test_a_table_of_two_columns(folder: pathlib.Path, head: str) -> None:
    rows = "\n".join(f'{name},"{label}"' for name, label in LABELS.items())
    path = write(folder, head + rows + "\n\n")
    assert found(path) == LABELS
    table = read_table(path)
    assert table.class_names == ("cat", "dog, small") and not table.notes
    assert [image.label for image in table.test] == [0, 1] and len(table.train) == 6
    assert read_table(path) == table
    data = load_images(data_path=path)
    numbers = data.train.gather(range(6))
    assert (numbers["label"] == numbers["image"][:, 0, 0, 0] // 10 % 2).all()


def test_named_columns_stand_anywhere(folder: pathlib.Path) -> None:
    rows = [
        f"{number}\t{label}\ttrain\t{name}" for number, (name, label) in enumerate(LABELS.items())
    ]
    rows[6:] = [row.replace("train", "Val") for row in rows[6:]]
    path = write(folder, "\n".join(["number\tcategory\tsplit\tfilename", *rows]), "labels.tsv")
    assert found(path) == LABELS
    assert [pathlib.Path(image.name).stem for image in read_table(path).test] == ["6", "7"]


def test_parts_without_names(folder: pathlib.Path) -> None:
    parts = ["train"] * 4 + ["test"] * 2 + ["validation", ""]
    rows = [
        f'{name},"{label}",{part}'
        for (name, label), part in zip(LABELS.items(), parts, strict=True)
    ]
    table = read_table(write(folder, "\n".join(rows)))
    assert len(table.train) == 4 and len(table.test) == 2
    assert table.notes == (
        f"{folder / 'labels.csv'}: left out, neither of train nor of test: 2 (pictures/6.png, "
        "pictures/7.png)",
    )


def test_what_is_left_out_is_counted_and_named(folder: pathlib.Path) -> None:
    rows = [f'{name},"{label}"' for name, label in LABELS.items()]
    rows += [rows[0], *(f"gone{n}.png,cat" for n in range(5)), "x" * 9999 + ",cat"]
    rows[3] = "pictures/3.png,"
    rows[4] = "pictures/4.png"
    table = read_table(write(folder, "\n".join(rows)))
    assert len(table.train) + len(table.test) == 6
    path = folder / "labels.csv"
    assert table.notes == (
        f"{path}: left out, without a class: 2 (pictures/3.png, pictures/4.png)",
        f"{path}: left out, no file: 6 (gone0.png, gone1.png, gone2.png, ...)",
    )


def test_several_labels(folder: pathlib.Path) -> None:
    rows = ["0.png,cat|dog", "1.png, dog | cat |", "2.png,", "3.png,cat|cat", "4.png,eel", "0.png,"]
    rows += ["5.png,eel|cat", "6.png,dog", "4.png,dog", "7.png,x"]
    (folder / "pictures" / "7.png").unlink()
    path = write(folder, "file,labels\n" + "\n".join("pictures/" + row for row in rows))
    table = read_table(path, "|")
    assert table.class_names == ("cat", "dog", "eel")
    named = {image.file.stem: image.label.tolist() for image in [*table.train, *table.test]}
    assert named == {
        "0": [1, 1, 0], "1": [1, 1, 0], "2": [0, 0, 0], "3": [1, 0, 0],
        "4": [0, 1, 1], "5": [1, 0, 1], "6": [0, 1, 0],
    }  # fmt: skip
    assert table.notes == (
        f"{path}: left out, no file: 1 (pictures/7.png)",
        f"{path}: without a label, taken as of no class: 1 (pictures/2.png)",
    )
    data = load_images(data_path=path, label_separator="|")
    numbers = data.train.gather(np.arange(len(data.train)))
    for pixel, label in zip(numbers["image"][:, 0, 0, 0], numbers["label"], strict=True):
        assert label.tolist() == named[str(pixel // 10)] and label.dtype == np.float32


def test_a_fifth_of_each_label_is_held_out() -> None:
    rng = np.random.default_rng(1)
    shares = (0.5, 0.2, 0.05, 0.01, 0.002)
    labels = (rng.random((1500, 5)) < shares).astype(np.uint8)
    images = [StoredImage(b"", label, "") for label in labels]
    for train, test in (hold_out_labels(images, "abcde"), hold_out_labels(images, "abcde")):
        assert len(train) + len(test) == 1500 and len(test) == pytest.approx(300, abs=3)
        counts = np.sum([image.label for image in test], axis=0)
        assert counts == pytest.approx(np.maximum(labels.sum(0) / 5, 1), abs=1.5)
    # Both of the rare ones share an image, and each is in both parts.
    pair = [StoredImage(b"", np.array(label), "") for label in ((1, 1), (1, 0), (0, 1), (0, 0))]
    train, test = hold_out_labels(pair, "ab")
    assert all(np.sum([image.label for image in part], axis=0).min() == 1 for part in (train, test))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pictures/0.png,\npictures/1.png,\n", "names no image with a class"),
        ("pictures/0.png,cat;dog\npictures/1.png,cat\n", "class dog has 1 image"),
        (
            "pictures/0.png,cat,train\npictures/1.png,cat;dog,test\n",
            "has no images to train on of dog; a class must",
        ),
    ],
)
def test_tables_of_several_labels_that_are_none(
    folder: pathlib.Path, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_images(data_path=write(folder, text), label_separator=";")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no image with a class, looking for files in"),
        ("image,label\n", "names no image with a class"),
        ("a.png,cat\nb.png,dog\n", "its rows are PATH,CLASS with paths relative to its own"),
        (
            "pictures/0.png,cat\npictures/0.png,dog\n",
            "gives pictures/0.png the classes cat and dog",
        ),
        ("pictures/0.png,cat\npictures/1.png,cat\npictures/2.png,dog\n", "class dog has 1 image"),
        ("pictures/0.png,cat,train\npictures/1.png,cat,train\n", "has the parts train; it needs"),
        ("pictures/0.png,cat,9\npictures/1.png,cat,7\n", "has the parts 7, 9; it needs train, and"),
        (
            "pictures/0.png,cat,train\npictures/1.png,dog,test\n",
            "has no images to train on of dog; a class must",
        ),
        ("\udcff", r"line 1 of .* is not UTF-8 \(byte 0xff\)"),
        (
            "pictures/0.png,cat\n" + "x" * (1 << 18),
            "cannot read .* as a table in UTF-8: field larger",
        ),
    ],
)
def test_tables_that_are_none(folder: pathlib.Path, text: str, message: str) -> None:
    path = folder / "labels.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message) as error:
        load_images(data_path=path)
    assert "\n" not in str(error.value)
