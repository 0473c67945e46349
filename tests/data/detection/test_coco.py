import json
import pathlib

import numpy as np
import pytest
from layouts import HEIGHT, WIDTH, coco_table, in_pictures, write, write_coco, write_picture

from dlcore.data.detection.coco import is_coco, read_coco
from dlcore.errors import InputError


def both(root: pathlib.Path, **changes: object) -> None:
    write_coco(root, {"train2017": coco_table(**changes), "val2017": coco_table()})


def with_annotation(**changes: object) -> dict:
    table = coco_table()
    table["annotations"][0] |= changes
    return table


def test_boxes_crowds_and_gaps_in_the_ids(tmp_path: pathlib.Path) -> None:
    both(tmp_path)
    found = read_coco(tmp_path)
    assert found.class_names == ("cat", "dog") and found.category_ids == (2, 9)
    b, a = found.train.objects
    assert b.picture == (7, "b.png") and b.size == (HEIGHT, WIDTH)
    assert in_pictures(b) == [[5, 10, 15, 30.5], [0, 0, HEIGHT, WIDTH]]
    assert b.labels.tolist() == [1, 0] and b.crowd.tolist() == [False, True]
    assert a.picture.id == 3 and len(a.labels) == 0, "a picture without an object stays"
    assert not found.notes and found.landmark_names == ()


def test_one_file_alone_is_both_parts(tmp_path: pathlib.Path) -> None:
    write_coco(tmp_path, {"train2017": coco_table()})
    file = tmp_path / "annotations" / "instances_train2017.json"
    for path in (tmp_path, file):
        found = read_coco(path)
        assert {o.picture.id for part in found[2:4] for o in part.objects} == {3, 7}
        assert len(found.test.images) == 1


def test_roboflows_layout(tmp_path: pathlib.Path) -> None:
    for part in ("train", "valid", "test"):
        write(tmp_path / part / "_annotations.coco.json", json.dumps(coco_table()))
        for name in ("a.png", "b.png"):
            write_picture(tmp_path / part / name)
    found = read_coco(tmp_path)
    assert str(found.test.images[0].file).startswith(str(tmp_path / "test"))
    assert found.notes == (
        f"{tmp_path}: not read, neither of train nor of test: 1 (_annotations.coco.json)",
    )


def test_key_points_are_joined_to_the_objects(tmp_path: pathlib.Path) -> None:
    both(tmp_path)
    points = coco_table(categories=[{"id": 9, "name": "dog", "keypoints": ["nose", "left_ear"]}])
    points["annotations"] = [
        points["annotations"][0] | {"keypoints": [12, 6, 2, 0, 0, 0], "num_keypoints": 1}
    ]
    write_coco(tmp_path, {"train2017": points}, kind="person_keypoints")
    found = read_coco(tmp_path)
    assert found.landmark_names == ("nose", "left_ear")
    b = found.train.objects[0]
    assert b.landmarks_mask.tolist() == [[True, False], [False, False]]
    # Half a pixel on from the index of the pixel.
    np.testing.assert_allclose(b.landmarks[0, 0] * [HEIGHT, WIDTH], [6.5, 12.5])
    assert found.test.objects[0].landmarks.shape == (2, 2, 2)


def test_what_is_left_out_is_counted(tmp_path: pathlib.Path) -> None:
    table = coco_table()
    table["images"].append({"id": 8, "file_name": "gone.png", "width": 4, "height": 4})
    table["annotations"].append({"image_id": 99, "category_id": 2, "bbox": [1, 1, 2, 2]})
    both(tmp_path, **table)
    (tmp_path / "train2017" / "gone.png").unlink()
    write_picture(tmp_path / "train2017" / "stray.png")
    found = read_coco(tmp_path)
    assert len(found.train.images) == 2
    assert [note.partition(": ")[2] for note in found.notes] == [
        "left out, annotations of pictures that are not listed: 1 (99)",
        f"left out, no file: 1 ({tmp_path}/train2017/gone.png)",
        "left out, files in folders of pictures that no JSON file lists: 1 "
        f"({tmp_path}/train2017/stray.png)",
    ]


def test_a_size_that_is_not_given_is_the_pictures(tmp_path: pathlib.Path) -> None:
    images = [{"id": 7, "file_name": "b.png"}, {"id": 3, "file_name": "a.png", "width": "x"}]
    both(tmp_path, images=images)
    assert in_pictures(read_coco(tmp_path).train.objects[0])[0] == [5, 10, 15, 30.5]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (with_annotation(category_id=5), r"annotation 0 \(id 1\) of .*json has the category 5"),
        (
            with_annotation(bbox=["1", "2", "3", "4"]),
            r"the box of annotation 0 \(id 1\) of .*\['1'",
        ),
        (with_annotation(bbox=[1, 2, 3]), r"the box of annotation 0 .* is \[1, 2, 3\]; it must be"),
        (with_annotation(category_id=[1]), "annotation 0 .* has an id that is not a number"),
        (coco_table(annotations=[{"image_id": 7}]), "annotation 0 of .* has no 'category_id'"),
        (coco_table(annotations=[3]), "annotation 0 of .* has no 'image_id'"),
        (
            coco_table(images=coco_table()["images"] * 2),
            "two pictures of the id 7: b.png and b.png",
        ),
        (coco_table(images=[{"id": 1, "file_name": 5}]), "image 0 of .* has no id and name"),
        (coco_table(categories=[]), "lists no category"),
        (coco_table(categories=[{"id": 2, "name": "x"}] * 2), "two categories of the id 2"),
        (coco_table(categories=[{"id": "2", "name": "x"}]), "the id '2', no number"),
        (coco_table(annotations={}), "has no list 'annotations'"),
        (
            coco_table(
                categories=[
                    {"id": 2, "name": "cat", "keypoints": ["nose"]},
                    {"id": 9, "name": "dog", "keypoints": ["tail"]},
                ]
            ),
            "categories with different key points",
        ),
    ],
)
def test_what_is_refused(tmp_path: pathlib.Path, table: dict, message: str) -> None:
    write_picture(tmp_path / "b.png")
    write(tmp_path / "instances.json", json.dumps(table))
    with pytest.raises(InputError, match=message) as error:
        read_coco(tmp_path / "instances.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"images": [],\n"annotations": [}',
            r"line 2 of .*json is not JSON .*\(Expecting value\)",
        ),
        ("[]", "json is not JSON in COCO's form"),
        ("", "line 1 of .*json is not JSON"),
    ],
)
def test_broken_json_names_file_and_line(tmp_path, text, message) -> None:
    write(tmp_path / "a.json", text)
    with pytest.raises(InputError, match=message):
        read_coco(tmp_path / "a.json")


def test_nan_in_json_is_a_box_to_drop(tmp_path: pathlib.Path) -> None:
    both(tmp_path, **with_annotation(bbox=[float("nan"), 1, 2, 3]))
    found = read_coco(tmp_path)
    assert len(found.train.objects[0].labels) == 1
    assert found.notes == (f"{tmp_path}: 1 of 4 boxes with NaN or infinity, dropped",)


def test_parts_that_do_not_fit(tmp_path: pathlib.Path) -> None:
    other = coco_table(categories=[{"id": 2, "name": "cat"}, {"id": 9, "name": "wolf"}])
    write_coco(tmp_path, {"train": coco_table(), "val": other})
    with pytest.raises(InputError, match="val.json has other categories than .*train.json"):
        read_coco(tmp_path)
    write_coco(tmp_path, {"train2014": coco_table(), "val": coco_table()})
    with pytest.raises(InputError, match="several files of one part: instances_train.json, inst"):
        read_coco(tmp_path)


def test_captions_are_no_boxes(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "annotations" / "captions_train2017.json", "{}")
    assert not is_coco(tmp_path)
    with pytest.raises(InputError, match="has no JSON file of boxes; expected annotations/"):
        read_coco(tmp_path)
