"""Square crops of pictures of any size."""

import numpy as np
import pytest
from PIL import Image

from dlcore.data.crops import CropLoader, load_crops, random_crop, squares
from dlcore.data.pictures import photograph
from dlcore.data.sources import Records
from dlcore.errors import InputError

RNG = np.random.default_rng(0)
SIZES = [(20, 31), (16, 16), (50, 33), (9, 12), (40, 18)]


def picture(height, width):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Five pictures, one of them in folders within, one smaller than the crops, beside a text."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    for number, size in enumerate(SIZES):
        where = tmp_path / "a" / "b" if number == 2 else tmp_path
        Image.fromarray(picture(*size)).save(where / f"{number}.png")
    (tmp_path / "a" / "notes.txt").write_text("none", encoding="utf-8")
    (tmp_path / ".hidden.png").write_bytes(b"")
    return tmp_path


def loader(source, **options):
    return CropLoader(source, 16, 4, seed=3, **options)


def test_what_a_folder_holds_is_counted(folder):
    data = load_crops(folder, 16)
    assert len(data.train) == 4 and data.test.arrays["image"].shape[1:] == (16, 16, 3)
    said = "\n".join(data.notes)
    assert f"{folder}: left out, no pictures by their names: 1 (a/notes.txt)" in said
    assert f"{folder}: left out, hidden: 1 (.hidden.png)" in said
    assert f"{folder}: 1 of 5 pictures enlarged to 16 pixels" in said
    # A shorter side of more than two crops is shrunk to two.
    shapes = [data.train.gather(np.array([i]))["image"].shape[1:3] for i in range(4)]
    assert {(20, 31), (16, 16), (48, 32), (9, 12), (40, 18)} > {*shapes}


def test_parts_are_those_of_the_folders(folder):
    for number, part in enumerate(("train", "val")):
        (folder / part).mkdir()
        Image.fromarray(np.full((20, 20, 3), 100 * number + 50, np.uint8)).save(
            folder / part / "one.png"
        )
    data = load_crops(folder, 16)
    assert len(data.train) == 1 and (data.train.gather(np.zeros(1, int))["image"] == 50).all()
    assert (data.test.arrays["image"] == 150).all()
    assert "left out, beside train/ and val/: 6 (" in "\n".join(data.notes)


def test_batches_are_the_same_from_memory_and_from_files_and_of_any_process(folder):
    data = load_crops(folder, 16)
    read = load_crops(folder, 16, in_memory_bytes=0)
    assert isinstance(read.train, Records) and len(read.train.source) == 4
    whole = loader(data.train)
    for step in (0, 3):
        batch = whole.batch(step)
        assert batch["image"].shape == (4, 16, 16, 3) and batch["weight"].tolist() == [1.0] * 4
        np.testing.assert_array_equal(loader(read.train).batch(step)["image"], batch["image"])
        parts = [
            loader(data.train, process_index=index, process_count=2).batch(step)["image"]
            for index in range(2)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), batch["image"])
    np.testing.assert_array_equal(next(whole.batches(3))["image"], batch["image"])
    # The same picture is cropped elsewhere each time, and by another seed.
    alone = Records([picture(60, 60)], lambda array: {"image": array})
    crops = [loader(alone).batch(step)["image"] for step in range(2)]
    crops.append(CropLoader(alone, 16, 4, seed=4).batch(0)["image"])
    assert len(np.unique(np.concatenate(crops).reshape(12, -1), axis=0)) == 12


def test_a_crop_is_a_square_of_the_picture_at_every_scale():
    # The values tell the place: a crop that is resized keeps the differences across.
    across, down = np.arange(120), np.arange(80)
    plane = np.broadcast_to(across, (80, 120)), np.broadcast_to(down[:, None], (80, 120))
    whole = np.stack([*plane, np.zeros((80, 120))], -1).astype(np.uint8)
    sides, mirrored, lefts = [], [], []
    for seed in range(60):
        crop = random_crop(whole, 20, np.random.default_rng(seed)).astype(float)
        slope = (crop[:, 18, 0] - crop[:, 1, 0]).mean() / 17
        sides.append(20 * abs(slope))
        mirrored.append(slope < 0)
        lefts.append(crop[..., 0].min())
        np.testing.assert_allclose(
            abs(slope), (crop[18, :, 1] - crop[1, :, 1]).mean() / 17, atol=0.1
        )
    assert min(sides) < 24 and max(sides) > 65 and max(sides) < 81
    assert abs(np.median(np.log(sides)) - np.log(40)) < 0.3  # uniform in the logarithm
    assert 15 < sum(mirrored) < 45 and min(lefts) < 5 and max(lefts) > 60
    # One that is a crop already stays as it is, but for its mirror image.
    small = picture(16, 16)
    crop = random_crop(small, 16, np.random.default_rng(0))
    assert np.array_equal(crop, small) or np.array_equal(crop[:, ::-1], small)


def test_squares_cover_a_picture():
    whole = picture(40, 16)
    found = squares(whole, 16)
    assert [np.array_equal(found[n], whole[start : start + 16]) for n, start in
            enumerate((0, 12, 24))] == [True] * 3  # fmt: skip


def test_photographs_are_there_without_files():
    data = load_crops(None, 64)
    assert len(data.train) == 2
    assert data.test.arrays["image"].shape == (6, 64, 64, 3)
    # What is held out is not trained on: the left third.
    first = np.asarray(Image.fromarray(photograph("china.jpg")[:213, :213]).resize((64, 64)))
    assert np.abs(data.test.arrays["image"][0].astype(float) - first).mean() < 5


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "has no pictures in one of the formats BMP, GIF, JPEG"),
        (("one.png",), "has 1 picture in one of .* and one to hold out"),
        (("one.png", "damaged.jpg"), "cannot read image .*damaged.jpg"),
    ],
)
def test_mistakes_are_one_line(tmp_path, files, message):
    for name in files:
        if name == "damaged.jpg":
            (tmp_path / name).write_bytes(b"no image")
        else:
            Image.fromarray(picture(20, 20)).save(tmp_path / name)
    with pytest.raises(InputError, match=message):
        load_crops(tmp_path, 16)
    with pytest.raises(InputError, match="is not a folder; give a folder of pictures"):
        load_crops(tmp_path / "nowhere", 16)
