import pathlib

import numpy as np
import pytest
from layouts import HEIGHT, WIDTH, in_pictures, voc_object, write, write_picture, write_voc

from dlcore.data.detection import load_detection
from dlcore.data.detection.voc import parse_xml, read_voc
from dlcore.errors import InputError

BOX = (11, 6, 20, 15)  # the pixels with indices 10..19 and 5..14
ONE = voc_object("cat", BOX)


def test_pixels_from_one_become_edges_from_zero(tmp_path: pathlib.Path) -> None:
    """Against counting: a box of the pixels 1..WIDTH is the whole picture."""
    text = ONE + voc_object("ant", (1, 1, WIDTH, HEIGHT), difficult=1)
    write_voc(tmp_path, {"a": text, "b": "", "c": ONE}, {"train": "ab", "val": "c"})
    found = read_voc(tmp_path)
    assert found.class_names == ("ant", "cat") and found.category_ids == (1, 2)
    a, b = found.train.objects
    assert in_pictures(a) == [[5, 10, 15, 20], [0, 0, HEIGHT, WIDTH]]
    assert a.labels.tolist() == [1, 0] and a.difficult.tolist() == [False, True]
    assert a.picture == ("a", "a.jpg") and a.size == (HEIGHT, WIDTH)
    assert len(b.labels) == 0, "a picture without an object stays"
    assert [o.picture.id for o in found.test.objects] == ["c"] and not found.notes


@pytest.mark.parametrize(
    ("lists", "train", "test"),
    [
        ({"train": "ab", "val": "c"}, "ab", "c"),
        ({"train": "a", "val": "b", "trainval": "ab", "test": "c"}, "ab", "c"),
        ({"train": "a", "test": "c"}, "a", "c"),
    ],
)
def test_the_lists_that_count(tmp_path, lists, train, test) -> None:
    write_voc(tmp_path, dict.fromkeys("abc", ONE), lists)
    found = read_voc(tmp_path)
    parts = ["".join(str(o.picture.id) for o in p.objects) for p in (found.train, found.test)]
    assert parts == [train, test]


def test_without_lists_a_fixed_fifth_is_held_out(tmp_path: pathlib.Path) -> None:
    write_voc(tmp_path, dict.fromkeys("abcdef", ONE))
    parts = [{o.picture.id for o in part.objects} for part in read_voc(tmp_path)[2:4]]
    assert len(parts[0]) == 4 and parts[0] | parts[1] == {*"abcdef"}
    assert parts == [{o.picture.id for o in part.objects} for part in read_voc(tmp_path)[2:4]]


def test_a_size_that_is_not_given_is_the_pictures(tmp_path: pathlib.Path) -> None:
    for at, size in enumerate(("", "<size><width>0</width><height>0</height></size>")):
        root = tmp_path / str(at)
        write_voc(root, {"a": ONE, "b": ONE}, {"train": "a", "val": "b"}, size=size)
        assert in_pictures(read_voc(root).train.objects[0]) == [[5, 10, 15, 20]]


def test_what_is_left_out_is_counted(tmp_path: pathlib.Path) -> None:
    write_voc(tmp_path, dict.fromkeys("abcd", ONE), {"train": "abbxy", "val": "cd"})
    (tmp_path / "JPEGImages" / "d.jpg").unlink()
    write_picture(tmp_path / "JPEGImages" / "y.jpg")
    found = read_voc(tmp_path)
    assert found.notes == (
        f"{tmp_path}: named again in a list, read once: 1 (b)",
        f"{tmp_path}: left out, without an annotation: 2 (x, y)",
        f"{tmp_path}: left out, annotations without a picture: 1 (d)",
    )
    assert (len(found.train.images), len(found.test.images)) == (2, 1)


def test_pictures_that_nobody_annotated_are_counted_without_lists(tmp_path: pathlib.Path) -> None:
    write_voc(tmp_path, dict.fromkeys("abc", ONE))
    write_picture(tmp_path / "JPEGImages" / "z.jpg")
    assert read_voc(tmp_path).notes == (
        f"{tmp_path}: left out, pictures without an annotation: 1 (z)",
    )


def test_faulty_boxes_are_counted(tmp_path: pathlib.Path) -> None:
    faults = [(5, 5, 4, 9), ("nan", 5, 9, 9), (0, 0, 50, 10), (60, 5, 70, 9), (6, 5, 5, 9)]
    text = ONE + "".join(voc_object("cat", box) for box in faults)
    write_voc(tmp_path, {"a": text, "b": ONE}, {"train": "a", "val": "b"})
    found = read_voc(tmp_path)
    assert in_pictures(found.train.objects[0]) == [[5, 10, 15, 20], [0, 0, 10, WIDTH]]
    # A last pixel before the first leaves a side of 0, or less where it is further before.
    assert [note.partition(": ")[2] for note in found.notes] == [
        "1 of 7 boxes with NaN or infinity, dropped",
        "2 of 7 boxes without area, dropped",
        "1 of 7 boxes outside of their picture, dropped",
        "1 of 7 boxes over the edge of their picture, clipped to it",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (voc_object("cat", ("a1", 1, 2, 2)), "line 7 of .*a.xml has xmin 'a1'; it must be a num"),
        ("<object><name>cat</name></object>", "line 3 of .*a.xml has object without bndbox/ymin"),
        ("<object></object>", "line 3 of .*a.xml has an object without a name"),
        ("<object></annotation>", r"line 3 of .*a.xml is not XML \(mismatched tag\); repair"),
    ],
)
def test_faults_of_xml_name_file_and_line(tmp_path, text, message) -> None:
    write_voc(tmp_path, {"a": text, "b": ONE}, {"train": "a", "val": "b"})
    with pytest.raises(InputError, match=message) as error:
        read_voc(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "declared",
    ['<!ENTITY a "aaaaaaaaaa">', '<!ENTITY a SYSTEM "file:///etc/hostname">', '<!ENTITY % a "b">'],
)
def test_entities_are_refused(tmp_path: pathlib.Path, declared: str) -> None:
    write(tmp_path / "a.xml", f"<!DOCTYPE annotation [\n{declared}\n]>\n<annotation/>")
    with pytest.raises(InputError, match="line 2 of .*a.xml declares an entity"):
        parse_xml(tmp_path / "a.xml")


def test_xml_in_other_encodings(tmp_path: pathlib.Path) -> None:
    declared = '<?xml version="1.0" encoding="{}"?><a><name>Käse</name></a>'
    for name, codec in (("ISO-8859-1", "latin-1"), ("UTF-16", "utf-16"), ("UTF-8", "utf-8-sig")):
        (tmp_path / "a.xml").write_bytes(declared.format(name).encode(codec))
        assert parse_xml(tmp_path / "a.xml").findtext("name") == "Käse"
    (tmp_path / "a.xml").write_bytes(declared.format("klingon").encode())
    with pytest.raises(InputError, match="a.xml"):
        parse_xml(tmp_path / "a.xml")


def test_what_cannot_be_meant(tmp_path: pathlib.Path) -> None:
    write_voc(tmp_path, dict.fromkeys("abc", ONE), {"train": "ab", "val": "bc"})
    with pytest.raises(InputError, match="1 names, such as b, are both in train.txt and in val"):
        read_voc(tmp_path)
    write_picture(tmp_path / "JPEGImages" / "a.png")
    write(tmp_path / "ImageSets" / "Main" / "val.txt", "c")
    with pytest.raises(InputError, match="two pictures a: a.jpg and a.png"):
        read_voc(tmp_path)
    for file in (tmp_path / "JPEGImages").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="no annotated pictures to train on"):
        read_voc(tmp_path)


def test_the_folder_is_loaded(tmp_path: pathlib.Path) -> None:
    write_voc(tmp_path, {"a": ONE, "b": ""}, {"train": "a", "val": "b"})
    data = load_detection(data_path=tmp_path, image_size=20)
    batch = data.train.gather(np.arange(1))
    # 40 x 20 becomes 20 x 10, with a border of 5 above and below.
    assert batch["boxes"].tolist() == [[[5 + 2.5, 5, 5 + 7.5, 10]]]
    assert batch["image"].shape == (1, 20, 20, 3)
    assert not batch["image"][0, :5].any() and not batch["image"][0, 15:].any()
    assert (batch["image"][0, 5:15, :, 2] > 200).all()
