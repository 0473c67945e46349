import itertools
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from dlcore.data import Arrays, ImageData, Loader, Records, load_images
from dlcore.data.image_folder import read_folder
from dlcore.data.pictures import ON_WHITE, SCALED, TURNED
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


@pytest.mark.parametrize("held_out", ["test", "validation", "valid", "val", "Test"])
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
        case "test alone":
            write_classes(root / "test", 2)
            write(root / "ant" / "0.png")
        case "nothing but empty classes":
            (root / "ant").mkdir()
        case "class only in test":
            write_classes(root / "train", 2, ("ant",))
            write_classes(root / "test", 2)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "is not a folder; expected train/ and test/"),
        ("empty", "has no folders of classes; expected train/ and test/"),
        ("flat", "has no folders of classes; expected train/ and test/"),
        ("class without images", "dog has no images; add some, remove the folder or give --allow"),
        ("single image", "class dog has 1 image; a class needs 2 or more"),
        ("train alone", "has train/ but no test/, validation/, valid/ or val/; expected"),
        ("test alone", "has test/ but no train/; expected"),
        ("nothing but empty classes", "ant has no images; add some"),
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


def labels(path: pathlib.Path, **options: bool) -> list[tuple[str, str]]:
    """The class and the name of each image, for training and test together."""
    found = read_folder(path, **options)
    return sorted(
        (found.class_names[image.label], str(pathlib.Path(image.name).relative_to(path)))
        for image in [*found.train, *found.test]
    )


def test_folders_within_those_of_classes_belong_to_the_class(tmp_path: pathlib.Path) -> None:
    names = ["0.png", "1.png", "deeper/still/2.png", "linked/far.png", "session 1/0.png"]
    write(tmp_path / "elsewhere" / "far.png")
    root = tmp_path / "data"
    for name in names[:3] + names[4:]:
        write(root / "cat" / name)
    for name in names[:2]:
        write(root / "dog" / name)
    (root / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "deeper" / "back").symlink_to(root / "cat")
    assert labels(root) == [
        *(("cat", f"cat/{name}") for name in names),
        *(("dog", f"dog/{name}") for name in names[:2]),
    ]
    within, back = sorted(read_folder(root).notes)
    assert within == (
        f"{root}: in folders within those of classes, taken for images of the class: 3 "
        "(cat/deeper/still/2.png, cat/linked/far.png, cat/session 1/0.png)"
    )
    assert back == f"{root}: left out, links to a folder around them: 1 (cat/deeper/back)"


def test_what_is_left_out_is_counted_and_named_once(tmp_path: pathlib.Path) -> None:
    write_classes(tmp_path / "train", 2)
    write_classes(tmp_path / "test", 1)
    write_classes(tmp_path / "val", 2, ("ant", "bee"))
    (tmp_path / "val" / "ant" / ".hidden").write_text("")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "train" / "labels.csv").write_text("")
    (tmp_path / "test" / "ant" / "Thumbs.db").write_text("")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "train" / "bee" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "train" / "gone").symlink_to(tmp_path / "nowhere")
    assert len(labels(tmp_path)) == 9
    assert {*read_folder(tmp_path).notes} == {
        f"{tmp_path}: {line}"
        for line in (
            "left out, beside train/ and test/: 4 (val/ant/000.png, val/ant/001.png, "
            "val/bee/000.png, ...)",
            "left out, beside the folders of classes: 2 (notes.txt, train/labels.csv)",
            "left out, hidden: 3 (__MACOSX, val/ant/.hidden, test/ant/Thumbs.db)",
            "left out, links to nothing and what else is no file: 2 (train/gone, "
            "train/bee/gone.png)",
        )
    }
    assert load_images(data_path=tmp_path).notes == read_folder(tmp_path).notes


def test_unlabelled_images_in_test_leave_the_validation_part(tmp_path: pathlib.Path) -> None:
    write_classes(tmp_path / "train", 2)
    write_classes(tmp_path / "valid", 1)
    write(tmp_path / "test" / "7.png")
    assert [name for _, name in labels(tmp_path) if name.startswith("test")] == []
    assert read_folder(tmp_path).notes == (
        f"{tmp_path}: left out, beside train/ and valid/: 1 (test/7.png)",
    )


@pytest.mark.parametrize("names", [("train", "bus"), ("bus", "test", "Train"), ("val", "test")])
def test_classes_with_names_of_parts(tmp_path: pathlib.Path, names: tuple[str, ...]) -> None:
    classes, parts = tmp_path / "classes", tmp_path / "parts"
    for name in names:
        for number in range(2):
            write(classes / name / f"{number}.png")
    found = read_folder(classes)
    assert found.class_names == tuple(sorted(names))
    assert len(found.train) == len(found.test) == len(names)
    alike = [name for name in sorted(names) if name != "bus"]
    assert found.notes == (
        f"{classes}: taken as classes, since no folders are within: {len(alike)} "
        f"({', '.join(alike)})",
    )
    # Within a part they are classes like any others.
    for part in ("train", "test"):
        for name in names:
            write(parts / part / name / "0.png")
    assert read_folder(parts).class_names == tuple(sorted(names)) and not read_folder(parts).notes


@pytest.mark.parametrize("parts", [("train/", "test/"), ("",)])
def test_empty_classes_can_be_allowed(tmp_path: pathlib.Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        write_classes(tmp_path / part, 2)
        (tmp_path / part / "bat").mkdir()
    with pytest.raises(InputError, match="bat has no images; .*--allow_empty_classes"):
        load_images(data_path=tmp_path)
    data = load_images(data_path=tmp_path, allow_empty=True)
    assert data.class_names == ("ant", "bat", "bee", "cat")
    assert {*arrays(data, "train").arrays["label"]} == {0, 2, 3}
    names = ", ".join(f"{part}bat" for part in parts)
    assert data.notes == (f"{tmp_path}: classes without images: {len(parts)} ({names})",)


def test_no_images_at_all(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ant").mkdir()
    with pytest.raises(InputError, match="has no images to train on, or none to test on"):
        read_folder(tmp_path, allow_empty=True)


def test_names_that_are_no_utf_8(tmp_path: pathlib.Path) -> None:
    """Classes get names that can be written; the files are read by their own."""
    for part, name in itertools.product((b"train", b"test"), (b"caf\xe9", "caf\u00e9".encode())):
        folder = pathlib.Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), part, name)))
        write(folder / os.fsdecode(b"\xff.png"))
    data = load_images(data_path=tmp_path)
    assert data.class_names == ("caf\u00e9", "caf\\xe9")
    assert len(data.train) == len(data.test) == 2
    for image in read_folder(tmp_path).train:
        image.name.encode()
    (folder / os.fsdecode(b"\xfe.png")).write_text("no image")
    with pytest.raises(InputError, match=r"cannot read image .*\\xfe\.png") as error:
        load_images(data_path=tmp_path)
    str(error.value).encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folders_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    write_classes(tmp_path, 2)
    (tmp_path / "bee").chmod(0)
    with pytest.raises(InputError, match="cannot read .*bee: Permission denied"):
        read_folder(tmp_path)


def test_errors_of_the_disk_are_one_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def iterdir(self: pathlib.Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(pathlib.Path, "iterdir", iterdir)
    with pytest.raises(InputError, match=f"cannot read {tmp_path}: Permission denied"):
        read_folder(tmp_path)


@pytest.mark.parametrize("where", ["in memory", "on the disk"])
def test_how_images_are_read_is_noted_once(tmp_path: pathlib.Path, where: str) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    for part in ("train", "test"):
        write_classes(tmp_path / part, 2)
        Image.new("RGB", (4, 6), (250, 0, 0)).save(tmp_path / part / "ant" / "t.png", exif=tags)
        Image.new("LA", (6, 4), (0, 0)).save(tmp_path / part / "bee" / "w.png")
        Image.fromarray(np.full((4, 6), 4000, np.uint16)).save(tmp_path / part / "cat" / "d.png")
    bytes_ = {"in memory": 1 << 20, "on the disk": 0}[where]
    data = load_images(data_path=tmp_path, in_memory_bytes=bytes_)
    assert data.image_shape == (4, 6, 3) and data.bits == 12
    n, among = {
        "in memory": (2, "18 images"),
        "on the disk": (1, "9 images that were looked at"),
    }[where]
    assert {*data.notes} == {
        f"{tmp_path}: {n} of {among} {note}" for note in (TURNED, ON_WHITE, SCALED)
    }
    whole = data.train.gather(np.arange(9))
    assert whole["image"][2].tolist() == [[[250, 0, 0]] * 6] * 4
    assert (whole["image"][5] == 255).all() and (whole["image"][8] == 250).all()


def test_image_size_zero_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="image size 0 is not possible"):
        load_images(data_path=tmp_path, image_size=0)
