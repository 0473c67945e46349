"""Images in a file of arrays, in the layout of Keras's mnist.npz."""

import pathlib
import zipfile

import numpy as np
import pytest

from dlcore.data import load_images
from dlcore.errors import InputError

RNG = np.random.default_rng(0)
ARRAYS = {
    "x_train": RNG.integers(0, 256, (6, 4, 5), np.uint8),
    "y_train": np.array([7, 3, 3, 7, 3, 9], np.uint8),
    "x_test": RNG.integers(0, 256, (2, 4, 5), np.uint8),
    "y_test": np.array([9, 3], np.uint8),
}


def write(folder: pathlib.Path, **changed: np.ndarray | None) -> pathlib.Path:
    path = folder / "own.npz"
    found = {name: array for name, array in (ARRAYS | changed).items() if array is not None}
    np.savez(path, **found)
    return path


def test_the_arrays_are_read_as_they_are(tmp_path: pathlib.Path) -> None:
    data = load_images(data_path=write(tmp_path))
    assert data.image_shape == (4, 5, 1) and data.class_names == ("3", "7", "9")
    assert data.notes == ()
    train, test = (split.gather(np.arange(len(split))) for split in (data.train, data.test))
    np.testing.assert_array_equal(train["image"][..., 0], ARRAYS["x_train"])
    np.testing.assert_array_equal(test["image"][..., 0], ARRAYS["x_test"])
    assert train["label"].tolist() == [1, 0, 0, 1, 0, 2] and test["label"].tolist() == [2, 0]
    assert train["label"].dtype == np.int32


def test_colours_and_labels_as_cifar_has_them(tmp_path: pathlib.Path) -> None:
    colours = {name: np.stack([ARRAYS[name]] * 3, -1) for name in ("x_train", "x_test")}
    labels = {name: ARRAYS[name][:, None].astype(np.int64) for name in ("y_train", "y_test")}
    data = load_images(data_path=write(tmp_path, **colours, **labels))
    assert data.image_shape == (4, 5, 3)
    found = data.train.gather(np.arange(6))
    np.testing.assert_array_equal(found["image"], colours["x_train"])
    assert found["label"].tolist() == [1, 0, 0, 1, 0, 2]


def test_images_are_fitted_into_squares(tmp_path: pathlib.Path) -> None:
    data = load_images(data_path=write(tmp_path), image_size=9)
    image = data.train.gather(np.arange(1))["image"][0, ..., 0]
    expected = np.zeros((9, 9), np.uint8)
    expected[2:6, 2:7] = ARRAYS["x_train"][0]
    np.testing.assert_array_equal(image, expected)


def test_pixels_of_0_to_1_are_multiplied_and_noted(tmp_path: pathlib.Path) -> None:
    real = {name: ARRAYS[name] / 255 for name in ("x_train", "x_test")}
    path = write(tmp_path, **real)
    data = load_images(data_path=path)
    found = data.train.gather(np.arange(6))["image"][..., 0]
    np.testing.assert_array_equal(found, ARRAYS["x_train"])
    assert data.notes == tuple(
        f"{path}: pixels of {name} in float64 are read as 255 times their value" for name in real
    )
    data = load_images(data_path=write(tmp_path, x_train=ARRAYS["x_train"] > 99))
    found = data.train.gather(np.arange(6))["image"][..., 0]
    np.testing.assert_array_equal(found, np.where(ARRAYS["x_train"] > 99, 255, 0))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y_test": None}, r"has no y_test but x_train, y_train, x_test; it must have x_train"),
        ({"x_train": ARRAYS["x_train"][0]}, r"x_train of .* has the shape \(4, 5\); images are"),
        ({"x_train": np.zeros((6, 4, 5, 2), np.uint8)}, r"the shape \(6, 4, 5, 2\)"),
        ({"x_test": np.zeros((0, 4, 5), np.uint8)}, r"x_test of .* the shape \(0, 4, 5\)"),
        ({"x_test": np.zeros((2, 4, 4), np.uint8)}, r"\(4, 5, 1\) in x_train and of \(4, 4, 1\)"),
        ({"x_train": np.full((6, 4, 5), 256)}, r"values of 256 to 256 in int64; pixels are whole"),
        ({"x_test": np.full((2, 4, 5), -0.4)}, r"x_test of .* of -0.4 to -0.4 in float64"),
        ({"x_test": np.full((2, 4, 5), np.nan)}, r"has values of nan to nan in float64"),
        ({"x_test": np.full((2, 4, 5), "a")}, r"is of <U1; pixels are numbers, such as uint8"),
        ({"y_train": ARRAYS["y_train"][1:]}, r"y_train of .* uint8 \(5,\); it must be 6 whole"),
        ({"y_test": np.array([0.5, 1])}, r"y_test of .* float64 \(2,\); it must be 2 whole"),
        ({"y_test": np.array([9, 4])}, r"y_test of .* the class 4, of which y_train has no image"),
        ({"y_train": np.array([None] * 6)}, r"cannot read .*: Object arrays cannot be loaded"),
    ],
)
def test_a_fault_is_one_line(
    tmp_path: pathlib.Path, changed: dict[str, np.ndarray | None], message: str
) -> None:
    path = write(tmp_path, **changed)
    with pytest.raises(InputError, match=message) as caught:
        load_images(data_path=path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_damaged_files_are_one_line(tmp_path: pathlib.Path) -> None:
    whole = write(tmp_path).read_bytes()
    path = tmp_path / "damaged.npz"
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for content in (b"", b"x_train", whole[:middle], flipped):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"cannot read .*damaged\.npz as arrays") as caught:
            load_images(data_path=path)
        assert "\n" not in str(caught.value)
    np.save(path.with_suffix(".npy"), ARRAYS["x_train"])
    path.with_suffix(".npy").rename(path)
    with pytest.raises(InputError, match="it holds a single array"):
        load_images(data_path=path)
    # Its header promises a million million numbers.
    with zipfile.ZipFile(path, "w") as archive:
        for name in ARRAYS:
            with archive.open(f"{name}.npy", "w") as member:
                header = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 1000, 1000)}
                np.lib.format.write_array_header_1_0(member, header)
    with pytest.raises(InputError, match="cannot read"):
        load_images(data_path=path)


def test_several_labels_are_not_read_from_arrays(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="is a file of arrays, whose images have one class each"):
        load_images(data_path=write(tmp_path), label_separator=";")
