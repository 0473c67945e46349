import pathlib

import pytest
from layouts import in_pictures, write, write_picture, write_yolo

from dlcore.data.detection.yolo import is_yolo, read_yolo
from dlcore.errors import InputError

LINE = "1 0.5 0.25 0.5 0.4\n"  # of 40 x 20: x from 10 to 30, y from 1 to 9
YAML = "path: /nowhere\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n"


def ids(part):
    return [o.picture.id for o in part.objects]


def test_shares_of_the_picture_become_corners(tmp_path: pathlib.Path) -> None:
    lines = {"train/a": LINE + "\n0 0.5 0.5 1 1\n", "train/b": "", "val/c": LINE}
    write_yolo(tmp_path, lines, data_yaml=YAML)
    assert is_yolo(tmp_path) and is_yolo(tmp_path / "data.yaml")
    found = read_yolo(tmp_path)
    assert found.class_names == ("cat", "dog") and found.category_ids == (1, 2)
    assert in_pictures(found.train.objects[0]) == [[1, 10, 9, 30], [0, 0, 20, 40]]
    assert found.train.objects[0].labels.tolist() == [1, 0]
    assert ids(found.train) == ["a", "b"] and ids(found.test) == ["c"] and not found.notes
    assert ids(read_yolo(tmp_path / "data.yaml").train) == ["a", "b"]


@pytest.mark.parametrize("names", ["names: {1: dog, 0: cat}", "names:\n  - cat\n  - dog\nnc: 2"])
def test_names_in_other_forms(tmp_path: pathlib.Path, names: str) -> None:
    text = YAML.replace("names: [cat, dog]", names)
    write_yolo(tmp_path, {"train/a": LINE, "val/b": LINE}, data_yaml=text)
    assert read_yolo(tmp_path).class_names == ("cat", "dog")


def test_roboflows_layout_and_lists_of_files(tmp_path: pathlib.Path) -> None:
    for part, name in (("train", "a"), ("valid", "b"), ("valid", "c")):
        write_picture(tmp_path / part / "images" / f"{name}.png")
        write(tmp_path / part / "labels" / f"{name}.txt", LINE)
    text = "train: ../train/images\nval: ../valid/images\nnames: [cat, dog]\n"
    write(tmp_path / "data.yaml", text)
    found = read_yolo(tmp_path)
    assert (ids(found.train), ids(found.test)) == (["a"], ["b", "c"])
    write(tmp_path / "val.txt", "./valid/images/c.png\nvalid/images/gone.png\n")
    write(tmp_path / "data.yaml", text.replace("../valid/images", "val.txt"))
    found = read_yolo(tmp_path)
    assert ids(found.test) == ["c"] and "left out, no file: 1" in found.notes[0]


def test_classes_in_a_text_file(tmp_path: pathlib.Path) -> None:
    write_yolo(tmp_path, {"train/a": LINE, "val/b": LINE}, classes_txt="cat\ndog\n")
    found = read_yolo(tmp_path)
    assert (ids(found.train), ids(found.test)) == (["a"], ["b"])
    other = tmp_path / "other"
    write_yolo(other, dict.fromkeys("abcdef", LINE))
    write(other / "labels" / "classes.txt", "cat\ndog\n")
    found = read_yolo(other)
    assert len(ids(found.train)) == 4 and {*ids(found.train), *ids(found.test)} == {*"abcdef"}
    assert not found.notes


def test_pictures_without_a_text_file_stay_and_texts_without_a_picture_are_counted(
    tmp_path: pathlib.Path,
) -> None:
    write_yolo(tmp_path, {"train/a": LINE, "train/b": LINE, "val/c": LINE}, data_yaml=YAML)
    (tmp_path / "labels" / "train" / "b.txt").unlink()
    write(tmp_path / "labels" / "train" / "z.txt", LINE)
    found = read_yolo(tmp_path)
    assert [len(o.labels) for o in found.train.objects] == [1, 0]
    assert [note.partition(": ")[2] for note in found.notes] == [
        "pictures without a text file, taken as without an object: 1 "
        f"({tmp_path}/images/train/b.png)",
        f"left out, text files without a picture: 1 ({tmp_path}/labels/train/z.txt)",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.5", "line 2 of .*a.txt has 4 values; it must be class, x, y, width, height"),
        ("0 0.5 0.5 0.5 0.5 0.5 0.5", "line 2 of .*a.txt has 7 values"),
        ("cat 0.5 0.5 0.5 0.5", "line 2 of .*a.txt is 'cat 0.5 0.5 0.5 0.5'; it must be five num"),
        ("2 0.5 0.5 0.5 0.5", r"line 2 of .*a.txt has the class 2; 2 classes have names, 0\.\.1"),
        ("0.5 0.5 0.5 0.5 0.5", "has the class 0.5; 2 classes"),
        ("nan 0.5 0.5 0.5 0.5", "has the class nan; 2 classes"),
    ],
)
def test_lines_that_are_refused(tmp_path: pathlib.Path, line: str, message: str) -> None:
    write_yolo(tmp_path, {"train/a": LINE + line, "val/b": LINE}, data_yaml=YAML)
    with pytest.raises(InputError, match=message):
        read_yolo(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a\ntrain: x", "line 2 of .*data.yaml is not YAML"),
        ("- a", "data.yaml is not a table in YAML"),
        ("!!python/object/apply:os.getcwd []", "data.yaml is not YAML"),
        ("names: []\ntrain: x\nval: y", "has no names of classes"),
        ("names: {1: a, 2: b}\ntrain: x\nval: y", r"numbers its names \[1, 2\]; number them from"),
        ("names: [a]\nnc: 2\ntrain: x\nval: y", "has nc: 2 and 1 names"),
        ("names: [a]\ntrain: x", "lacks train, and val or test"),
        ("names: [a]\ntrain: 5\nval: 6", "has the part 5; give a folder of pictures"),
        ("names: [a]\ntrain: no\nval: nowhere", "lacks train"),
        ("names: [a]\ntrain: gone\nval: nowhere", "has no pictures to train on"),
        (YAML.replace("images/val", "images/train"), "1 pictures .* are both to train on and to"),
    ],
)
def test_tables_that_are_refused(tmp_path: pathlib.Path, text: str, message: str) -> None:
    write_yolo(tmp_path, {"train/a": LINE, "val/b": LINE}, data_yaml=text)
    with pytest.raises(InputError, match=message) as error:
        read_yolo(tmp_path)
    assert "\n" not in str(error.value)


def test_two_pictures_of_one_text_file(tmp_path: pathlib.Path) -> None:
    write_yolo(tmp_path, {"train/a": LINE, "val/b": LINE}, data_yaml=YAML)
    write_picture(tmp_path / "images" / "train" / "a.jpg")
    with pytest.raises(InputError, match="a.txt belongs to two pictures, .*a.jpg and .*a.png"):
        read_yolo(tmp_path)
