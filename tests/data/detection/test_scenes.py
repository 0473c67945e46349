"""Loading: squares, padding, pictures of every kind, and boxes that turn with them."""

import pathlib

import numpy as np
import pytest
from layouts import (
    coco_table,
    voc_object,
    write,
    write_coco,
    write_picture,
    write_voc,
    write_yolo,
)
from PIL import Image, ImageOps

from dlcore.boxes import Letterbox
from dlcore.data import Loader, Records, channel_moments
from dlcore.data.detection import fit_letterbox, load_detection, read_squares
from dlcore.errors import InputError

CAT = voc_object("cat", (11, 6, 20, 15))


def all_of(split):
    return split.gather(np.arange(len(split)))


def test_objects_are_padded_to_the_most_of_both_parts(tmp_path: pathlib.Path) -> None:
    write_coco(tmp_path, {"train": coco_table(), "val": coco_table()})
    data = load_detection(data_path=tmp_path, image_size=40)
    batch = all_of(data.train)
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "image": ((2, 40, 40, 3), "uint8"),
        "boxes": ((2, 2, 4), "float32"),
        "boxes_mask": ((2, 2), "bool"),
        "labels": ((2, 2), "int32"),
        "difficult": ((2, 2), "bool"),
        "crowd": ((2, 2), "bool"),
        "image_id": ((2,), "int32"),
        "size": ((2, 2), "int32"),
    }
    assert batch["boxes_mask"].tolist() == [[True, True], [False, False]]
    assert batch["boxes"].tolist() == [[[15, 10, 25, 30.5], [10, 0, 30, 40]], [[0] * 4] * 2]
    assert batch["crowd"].tolist() == [[False, True], [False, False]]
    assert [data.train_pictures[i].id for i in batch["image_id"]] == [7, 3]
    assert batch["size"].tolist() == [[20, 40]] * 2
    back = Letterbox.fit(20, 40, 40).to_picture(batch["boxes"][0])
    assert back.tolist() == [[5, 10, 15, 30.5], [0, 0, 20, 40]]
    assert data.category_ids == (2, 9) and data.num_classes == 2


def test_landmarks_follow_into_the_square(tmp_path: pathlib.Path) -> None:
    names = ["left_ear", "right_ear"]
    table = coco_table(categories=[{"id": i, "name": str(i), "keypoints": names} for i in (2, 9)])
    table["annotations"][0]["keypoints"] = [12, 6, 2, 0, 0, 0]
    write_coco(tmp_path, {"train": table, "val": table})
    data = load_detection(data_path=tmp_path, image_size=20)
    batch = all_of(data.train)
    assert batch["landmarks"].shape == (2, 2, 2, 2) and data.landmark_pairs == ((0, 1),)
    assert batch["landmarks"][0, 0].tolist() == [[5 + 6.5 / 2, 12.5 / 2], [0, 0]]
    assert batch["landmarks_mask"][0].tolist() == [[True, False], [False, False]]


def test_what_is_too_large_is_decoded_as_it_is_read(tmp_path: pathlib.Path) -> None:
    write_coco(tmp_path, {"train": coco_table(), "val": coco_table()})
    whole = load_detection(data_path=tmp_path, image_size=8)
    lazy = load_detection(data_path=tmp_path, image_size=8, in_memory_bytes=0)
    assert isinstance(lazy.train, Records)
    for name, array in all_of(whole.train).items():
        np.testing.assert_array_equal(all_of(lazy.train)[name], array)
    batch = Loader(whole.train, 4, seed=0).batch(0)
    assert batch["weight"].tolist() == [1] * 4 and batch["image"].shape == (4, 8, 8, 3)
    assert channel_moments(whole.train)[0].shape == (3,)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("stored", [True, False])
def test_boxes_turn_with_their_picture(tmp_path, orientation: int, stored: bool) -> None:
    """Against Pillow: the box around the white part of the picture that it turned."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[5:15, 10:20] = 255
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = None
    for name in "ab":
        path = tmp_path / "JPEGImages" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        image.save(path, exif=exif)
        with Image.open(path) as file:
            upright = np.asarray(ImageOps.exif_transpose(file))
    white = np.argwhere(upright[..., 0] > 127)
    (top, left), (bottom, right) = white.min(0), white.max(0) + 1
    height, width = upright.shape[:2]
    if stored and (height, width) != (20, 40):
        size, drawn = (40, 20), (11, 6, 20, 15)
    else:
        # Where the sizes do not tell, boxes are those of the upright picture.
        size, drawn = (width, height), (left + 1, top + 1, right, bottom)
    for name in "ab":
        text = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
        write(
            tmp_path / "Annotations" / f"{name}.xml",
            f"<annotation>{text}{voc_object('cat', drawn)}</annotation>",
        )
    data = load_detection(data_path=tmp_path, image_size=40)
    batch = all_of(data.train)
    box = Letterbox.fit(height, width, 40).to_picture(batch["boxes"][0, 0])
    np.testing.assert_allclose(box, [top, left, bottom, right], atol=1e-5)
    assert batch["size"].tolist() == [[height, width]]
    top, left, bottom, right = batch["boxes"][0, 0].astype(int)
    assert (batch["image"][0, top:bottom, left:right] == 255).all()
    assert (batch["image"][0] == 255).sum() == 3 * 100
    turned = any("turned upright" in note for note in data.notes)
    assert turned == (orientation > 1)


def test_landmarks_turn_with_their_picture(tmp_path: pathlib.Path) -> None:
    table = coco_table(categories=[{"id": i, "name": str(i), "keypoints": ["tip"]} for i in (2, 9)])
    table["annotations"][0]["keypoints"] = [0, 0, 2]
    write_coco(tmp_path, {"train": table, "val": table})
    for part in ("train", "val"):
        write_picture(tmp_path / part / "b.png", orientation=6)  # turned to the right
    data = load_detection(data_path=tmp_path, image_size=40)
    assert all_of(data.train)["landmarks"][0, 0].tolist() == [[0.5, 10 + 19.5]]


def test_pictures_of_every_kind(tmp_path: pathlib.Path) -> None:
    """Grey, with alpha, of 16 bits, of one pixel, with a palette: all are read."""
    write_voc(tmp_path, dict.fromkeys("abcdef", CAT), {"train": "abcde", "val": "f"}, size="")
    folder = tmp_path / "JPEGImages"
    for file in folder.iterdir():
        file.unlink()
    Image.new("L", (40, 20), 100).save(folder / "a.png")
    Image.new("RGBA", (40, 20), (0, 0, 0, 0)).save(folder / "b.png")
    Image.fromarray(np.full((20, 40), 1 << 11, np.uint16)).save(folder / "c.png")
    Image.new("RGB", (40, 20), "red").quantize(4).save(folder / "d.png")
    Image.new("RGB", (1, 1), "white").save(folder / "e.png")
    Image.new("L", (40, 20), 9).save(folder / "f.png")
    data = load_detection(data_path=tmp_path, image_size=10)
    images = all_of(data.train)["image"]
    assert [image[5, 5].tolist() for image in images] == [
        [100] * 3,
        [255] * 3,
        [128] * 3,  # 2048 of the 12 bits that the data has
        [255, 0, 0],
        [255] * 3,
    ]
    assert images[4].min() == 255
    # A box of the pixels 11..20 is outside of a picture of one.
    assert all_of(data.train)["boxes_mask"][:, 0].tolist() == [True] * 4 + [False]
    notes = "\n".join(data.notes)
    for words in ("1 of 6 boxes outside", "with transparency, put on white", "scaled to 8"):
        assert words in notes
    Image.new("F", (40, 20)).save(folder / "f.tif")
    (folder / "f.png").unlink()
    with pytest.raises(InputError, match=r"cannot read image .*f.tif: pixels of 32 bits"):
        load_detection(data_path=tmp_path, image_size=10)


def test_grey_pictures_have_one_channel(tmp_path: pathlib.Path) -> None:
    write_yolo(tmp_path, dict.fromkeys("ab", "0 0.5 0.5 1 1"), classes_txt="cat")
    for name in "ab":
        Image.new("L", (16, 16), 7).save(tmp_path / "images" / f"{name}.png")
    data = load_detection(data_path=tmp_path)
    assert data.image_shape == (16, 16, 1) and data.class_names == ("cat",)
    assert (all_of(data.train)["image"] == 7).all()
    assert all_of(data.train)["boxes"].tolist() == [[[0, 0, 16, 16]]]


def test_classes_without_objects_are_named(tmp_path: pathlib.Path) -> None:
    lines = {"train/a": "0 0.5 0.5 1 1", "val/b": "1 0.5 0.5 1 1"}
    write_yolo(tmp_path, lines, classes_txt="cat\ndog\n")
    data = load_detection(data_path=tmp_path, image_size=8)
    assert data.notes == (f"{tmp_path}: 1 of 2 classes have no object to train on (dog)",)
    write(tmp_path / "labels" / "train" / "a.txt", "")
    with pytest.raises(InputError, match="has no object to train on; annotate some"):
        load_detection(data_path=tmp_path, image_size=8)


def test_what_is_refused(tmp_path: pathlib.Path) -> None:
    write_voc(tmp_path, dict.fromkeys("ab", CAT), {"train": "a", "val": "b"})
    with pytest.raises(
        InputError, match="pictures of 20 x 40 are not squares of one size; give --"
    ):
        load_detection(data_path=tmp_path)
    with pytest.raises(InputError, match="image size 0 is not possible"):
        load_detection(data_path=tmp_path, image_size=0)
    write_picture(tmp_path / "JPEGImages" / "a.jpg", (30, 20))
    with pytest.raises(InputError, match="a.jpg is 20 x 30, and its boxes were drawn for 20 x 40"):
        load_detection(data_path=tmp_path, image_size=8)
    (tmp_path / "JPEGImages" / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot read image .*a.jpg: it is damaged"):
        load_detection(data_path=tmp_path, image_size=8)
    for given, message in (
        ("", "the data path is empty"),
        (tmp_path / "gone", "does not exist; give a folder of annotated pictures"),
        (tmp_path / "JPEGImages", "has none of the known layouts"),
        (tmp_path / "JPEGImages" / "a.jpg", "has none of the known layouts"),
    ):
        with pytest.raises(InputError, match=message):
            load_detection(data_path=given)


def test_pictures_alone_are_read_as_those_of_a_data_set(tmp_path: pathlib.Path) -> None:
    write_coco(tmp_path, {"train": coco_table(), "val": coco_table()})
    data = load_detection(data_path=tmp_path, image_size=16)
    paths = [tmp_path / "train" / name for name in ("b.png", "a.png")]
    images, sizes = read_squares(paths, data.image_shape, data.bits)
    np.testing.assert_array_equal(images, all_of(data.train)["image"])
    assert sizes.tolist() == [[20, 40]] * 2


@pytest.mark.parametrize("shape", [(20, 40, 3), (40, 7, 1), (1, 1, 3), (1, 300, 3), (16, 16, 3)])
def test_squares_hold_the_whole_picture(shape: tuple[int, int, int]) -> None:
    square = fit_letterbox(np.full(shape, 200, np.uint8), 16)
    box = Letterbox.fit(*shape[:2], 16)
    rows, columns = box.size
    inside = square[box.top : box.top + rows, box.left : box.left + columns]
    assert (inside == 200).all() and (square > 0).sum() == rows * columns * shape[2]
