"""Pascal VOC and COCO from archives of a few pictures, by the stock builders of TFDS."""

import io
import json
import pathlib
import tarfile
import zipfile

import numpy as np
import pytest
from layouts import coco_table, voc_object
from PIL import Image

from dlcore.data.builders import digits
from dlcore.data.detection import load_detection
from dlcore.data.prepare import prepare
from dlcore.errors import InputError


def picture(colour: str = "blue") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 20), colour).save(file, "jpeg")
    return file.getvalue()


def annotation(*objects: str) -> str:
    size = "<size><width>40</width><height>20</height><depth>3</depth></size>"
    whole = "".join(objects).replace(
        "<difficult>", "<pose>Left</pose><truncated>0</truncated><difficult>"
    )
    return f"<annotation>{size}{whole}</annotation>"


def write_voc_archives(folder: pathlib.Path) -> None:
    folder.mkdir()
    parts = {"VOCtrainval_06-Nov-2007.tar": ("train", "val"), "VOCtest_06-Nov-2007.tar": ("test",)}
    for archive, names in parts.items():
        with tarfile.open(folder / archive, "w") as tar:
            for name in names:
                text = annotation(
                    voc_object("dog", (10, 5, 20, 15)), voc_object("cat", (2, 2, 4, 4), difficult=1)
                )
                for path, data in (
                    (f"ImageSets/Main/{name}.txt", f"{name}_1\n{name}_2\n".encode()),
                    (f"Annotations/{name}_1.xml", text.encode()),
                    (f"Annotations/{name}_2.xml", annotation().encode()),
                    (f"JPEGImages/{name}_1.jpg", picture()),
                    (f"JPEGImages/{name}_2.jpg", picture()),
                ):
                    info = tarfile.TarInfo(f"VOCdevkit/VOC2007/{path}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def test_pascal_voc(tmp_path: pathlib.Path) -> None:
    write_voc_archives(tmp_path / "archives")
    prepare("voc/2007", data_dir=tmp_path, archives=tmp_path / "archives")
    data = load_detection("voc/2007", data_dir=tmp_path, image_size=40)
    assert data.name == "voc/2007/5.0.0" and data.num_classes == 20
    assert data.class_names[:3] == ("aeroplane", "bicycle", "bird")
    batch = data.train.gather(np.arange(2))
    (one,) = np.flatnonzero(batch["boxes_mask"].any(1))
    assert data.train_pictures[one] == ("train_1.jpg", "train_1.jpg")
    found = dict(zip(batch["labels"][one].tolist(), batch["boxes"][one].tolist(), strict=True))
    names = {data.class_names[label]: box for label, box in found.items()}
    np.testing.assert_allclose(names["dog"], [15, 10, 25, 20], atol=1e-4)
    assert batch["difficult"][one].tolist() == [
        data.class_names[label] == "cat" for label in batch["labels"][one]
    ]
    assert "voc/2007/5.0.0: tested on the split test; not read: validation" in data.notes
    assert "18 of 20 classes have no object to train on (aeroplane, bicycle" in data.notes[-1]


def test_coco_whose_test_has_no_objects(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "archives"
    folder.mkdir()
    names = [f"class {number}" for number in range(78)]
    categories = coco_table()["categories"] + [
        {"id": 20 + number, "name": name} for number, name in enumerate(names)
    ]
    table = coco_table(categories=categories)
    for entry in table["annotations"]:
        entry["area"] = 100
    for part in ("train2017", "val2017", "test2017"):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for image in table["images"]:
                archive.writestr(f"{part}/{image['file_name']}", picture())
    with zipfile.ZipFile(folder / "annotations_trainval2017.zip", "w") as archive:
        for part in ("train2017", "val2017"):
            archive.writestr(f"annotations/instances_{part}.json", json.dumps(table))
    with zipfile.ZipFile(folder / "image_info_test2017.zip", "w") as archive:
        bare = {"images": table["images"], "categories": categories}
        archive.writestr("annotations/image_info_test2017.json", json.dumps(bare))
    prepare("coco/2017", data_dir=tmp_path, archives=folder)
    data = load_detection("coco/2017", data_dir=tmp_path, image_size=40)
    assert data.class_names[:2] == ("dog", "cat") and data.num_classes == 80
    batch = data.test.gather(np.arange(2))
    (one,) = np.flatnonzero(batch["boxes_mask"].any(1))
    assert data.test_pictures[one] == (7, "b.png")
    np.testing.assert_allclose(
        batch["boxes"][one], [[15, 10, 25, 30.5], [10, 0, 30, 40]], atol=1e-4
    )
    assert batch["crowd"][one].tolist() == [False, True]
    assert "coco/2017/1.1.0: tested on the split validation; not read: test" in data.notes


def test_only_the_archives_of_the_configuration_are_asked_for(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="lacks annotations_trainval2017.zip") as error:
        prepare("coco/2017", data_dir=tmp_path, archives=tmp_path)
    assert "2014" not in str(error.value) and "panoptic" not in str(error.value)
    with pytest.raises(InputError, match="lacks VOC2012test.tar, VOCtrainval_11-May") as error:
        prepare("voc/2012", data_dir=tmp_path, archives=tmp_path)
    assert "2007" not in str(error.value)


def test_what_is_not_prepared_or_has_no_objects(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = np.zeros((3, 8, 8)), np.arange(3), {"train": np.arange(2), "test": np.arange(2, 3)}
    monkeypatch.setattr(digits, "split_digits", lambda: few)
    with pytest.raises(InputError, match="'voc/2007' is not prepared .*: dlcore prepare voc/2007"):
        load_detection("voc/2007", data_dir=tmp_path)
    with pytest.raises(InputError, match="digits/1.0.0' has no 8-bit 'image' with 'objects'"):
        load_detection("digits", data_dir=tmp_path)
