import numpy as np
import pytest

from dlcore.data import Arrays, ImageData, Records


def decode(record: int) -> dict[str, np.ndarray]:
    return {"image": np.full((2, 2, 1), record, np.uint8), "label": np.int32(record % 7)}


def test_arrays_gather_rows_in_order_with_repeats() -> None:
    split = Arrays({"a": np.arange(10).reshape(5, 2), "b": np.arange(5)})
    rows = split.gather(np.array([4, 0, 4]))
    assert len(split) == 5
    assert rows["a"].tolist() == [[8, 9], [0, 1], [8, 9]]
    assert rows["b"].tolist() == [4, 0, 4]


def test_arrays_gather_copies() -> None:
    split = Arrays({"a": np.zeros(3)})
    split.gather(np.array([1]))["a"][:] = 1
    assert split.arrays["a"].tolist() == [0, 0, 0]


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one length.*'a': 3.*'b': 2"):
        Arrays({"a": np.zeros(3), "b": np.zeros(2)})


def test_records_decode_what_is_gathered() -> None:
    rows = Records(range(20), decode).gather(np.array([19, 3]))
    assert rows["image"].shape == (2, 2, 2, 1) and rows["image"].dtype == np.uint8
    assert rows["image"][:, 0, 0, 0].tolist() == [19, 3]
    assert rows["label"].tolist() == [5, 3] and rows["label"].dtype == np.int32


@pytest.mark.parametrize("count", [1, 255, 256, 257, 600])
def test_loading_records_gives_the_same_examples(count: int) -> None:
    records = Records(range(count), lambda record: {"x": np.float32(record)})
    assert records.load().arrays["x"].tolist() == list(range(count))


def test_number_of_classes() -> None:
    split = Arrays({"label": np.zeros(1)})
    assert ImageData("x", split, split, ("cat", "dog", "emu"), (2, 2, 1)).num_classes == 3


def test_a_subset_gathers_from_the_chosen_examples_alone():
    values = np.arange(10)
    picked = np.array([7, 2, 5])
    arrays = Arrays({"x": values}).subset(picked)
    records = Records(list(values), lambda value: {"x": np.asarray(value)}).subset(picked)
    for split in (arrays, records):
        assert len(split) == 3
        np.testing.assert_array_equal(split.gather(np.array([2, 0]))["x"], [5, 7])
