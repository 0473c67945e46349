"""Bits that are drawn of grey images."""

import numpy as np
import pytest

from dlcore.data import Arrays, Loader, Records
from dlcore.data.bits import dynamic_bits, grey_share, static_bits
from dlcore.errors import InputError

LEVELS = np.array([0, 1, 64, 128, 254, 255], np.uint8)


def grey(count: int = 6) -> Arrays:
    image = np.broadcast_to(LEVELS[:count, None, None, None], (count, 100, 100, 1))
    return Arrays({"image": np.ascontiguousarray(image), "label": np.arange(count)})


def batches(split: Arrays, start: int, seed: int = 3, index: int = 0, count: int = 1) -> list:
    loader = Loader(split, 4, seed=seed, process_index=index, process_count=count)
    stream = dynamic_bits(
        loader.batches(start),
        start,
        seed=seed,
        batch_size=4,
        process_index=index,
        process_count=count,
    )
    return [next(stream) for _ in range(3)]


def test_a_pixel_is_white_with_the_probability_of_its_intensity() -> None:
    bits = static_bits(grey(), 0).arrays["image"]
    assert bits.dtype == np.uint8 and set(np.unique(bits)) == {0, 255}
    p = LEVELS / 255
    share = (bits == 255).mean((1, 2, 3))
    assert (np.abs(share - p) <= 4 * np.sqrt(p * (1 - p) / 10_000)).all(), share


def test_static_bits_are_always_the_same_and_leave_the_rest() -> None:
    split = grey()
    first, second = static_bits(split, 0), static_bits(split, 0)
    np.testing.assert_array_equal(first.arrays["image"], second.arrays["image"])
    assert first.arrays["label"] is split.arrays["label"]
    assert grey_share(split) == pytest.approx(4 / 6) and grey_share(first) == 0
    for other in (static_bits(split, 1), static_bits(split, 0, seed=1)):
        assert (other.arrays["image"] != first.arrays["image"]).any()


def test_static_bits_of_many_images_are_drawn_in_parts() -> None:
    image = np.full((5000, 2, 2, 1), 128, np.uint8)
    bits = static_bits(Arrays({"image": image}), 0).arrays["image"]
    assert (bits[:904] != bits[4096:]).any()
    assert (bits == 255).mean() == pytest.approx(128 / 255, abs=0.02)


def test_dynamic_bits_are_a_function_of_seed_and_step() -> None:
    first = batches(grey(), 0)
    for step, batch in enumerate(first):
        assert set(np.unique(batch["image"])) == {0, 255} and batch["weight"].shape == (4,)
        (again, *_) = batches(grey(), step)
        np.testing.assert_array_equal(batch["image"], again["image"])
    # The same images get other bits at another step, and by another seed.
    one = grey(3).subset(np.array([2, 2, 2, 2]))
    here, later, other = *batches(one, 0)[:2], batches(one, 0, seed=4)[0]
    for each in (later, other):
        assert 0.3 < (here["image"] != each["image"]).mean() < 0.45  # 2 p (1 - p) = 0.376
    rows = here["image"].reshape(4, -1)
    assert (rows[0] != rows[1]).any()


def test_processes_share_the_bits_of_one() -> None:
    whole = batches(grey(), 0)
    parts = [batches(grey(), 0, index=index, count=2) for index in range(2)]
    for one, *two in zip(whole, *parts, strict=True):
        together = np.concatenate([part["image"] for part in two])
        np.testing.assert_array_equal(one["image"], together)


def test_images_on_the_disk_are_not_drawn_once() -> None:
    records = Records([0, 1], lambda number: {"image": np.zeros((2, 2, 1), np.uint8)})
    with pytest.raises(InputError, match="give --binarise=dynamic for training"):
        static_bits(records, 0)
