import itertools
import time
from collections.abc import Iterator

import numpy as np
import pytest

from dlcore.data import Arrays, Batch, Loader, Records, Split, evaluation_batches
from dlcore.errors import InputError

N = 10


def in_memory(count: int = N) -> Arrays:
    return Arrays({"image": np.arange(count * 3, dtype=np.uint8).reshape(count, 3)})


def on_disk(count: int = N) -> Records:
    return Records(range(count), lambda row: {"image": in_memory(count).arrays["image"][row]})


def rows(batch: Batch) -> list[int]:
    return (batch["image"][:, 0] // 3).tolist()


def stream(seed: int, epochs: int) -> list[int]:
    """The order of examples by its definition."""
    return [
        row
        for epoch in range(epochs)
        for row in np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(N).tolist()
    ]


@pytest.fixture(params=[in_memory, on_disk])
def split(request: pytest.FixtureRequest) -> Split:
    return request.param()


@pytest.mark.parametrize("batch_size", [1, 4, 10, 13, 25])
def test_batches_are_slices_of_one_permutation_after_another(split: Split, batch_size: int) -> None:
    loader = Loader(split, batch_size, seed=3)
    count = 40 // batch_size
    got = [row for batch in itertools.islice(loader.batches(), count) for row in rows(batch)]
    assert got == stream(3, 4)[: count * batch_size]


def test_every_example_once_per_epoch_in_a_new_order() -> None:
    got = rows(Loader(in_memory(), 3 * N, seed=0).batch(0))
    epochs = [got[:N], got[N : 2 * N], got[2 * N :]]
    assert [sorted(epoch) for epoch in epochs] == [list(range(N))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_seeds_give_different_orders() -> None:
    orders = {tuple(rows(Loader(in_memory(), N, seed=seed).batch(0))) for seed in range(5)}
    assert len(orders) == 5


@pytest.mark.parametrize("step", [0, 1, 2, 7, 10**12])
def test_any_step_can_be_had_at_any_time(split: Split, step: int) -> None:
    loader = Loader(split, 4, seed=1)
    ahead = next(Loader(split, 4, seed=1).batches(step))
    loader.batch(5)
    assert rows(loader.batch(step)) == rows(ahead)


@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_processes_share_the_same_global_batches(split: Split, process_count: int) -> None:
    whole = Loader(in_memory(), 8, seed=5).batches()
    parts = [
        Loader(split, 8, seed=5, process_index=index, process_count=process_count).batches()
        for index in range(process_count)
    ]
    for _ in range(5):
        batches = [next(part) for part in parts]
        assert {len(batch["image"]) for batch in batches} == {8 // process_count}
        assert [row for batch in batches for row in rows(batch)] == rows(next(whole))


def test_every_row_weighs_one(split: Split) -> None:
    weight = Loader(split, 4, seed=0).batch(0)["weight"]
    assert weight.dtype == np.float32 and weight.tolist() == [1, 1, 1, 1]


def test_batches_share_no_memory() -> None:
    split = in_memory()
    batches = Loader(split, N, seed=0).batches()
    next(batches)["image"][:] = 0
    assert sorted(rows(next(batches))) == list(range(N))


@pytest.mark.parametrize("process_count", [1, 2])
@pytest.mark.parametrize("batch_size", [2, 4, 10, 16])
def test_evaluation_sees_every_example_once_in_order(
    split: Split, batch_size: int, process_count: int
) -> None:
    parts: list[Iterator[Batch]] = [
        evaluation_batches(split, batch_size, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    seen, weights = [], []
    for batches in zip(*parts, strict=True):
        for batch in batches:
            assert len(batch["image"]) == batch_size // process_count
            seen += rows(batch)
            weights += batch["weight"].tolist()
    padding = -N % batch_size
    assert seen == [*range(N), *[0] * padding]
    assert weights == [1.0] * N + [0.0] * padding


@pytest.mark.parametrize(
    ("batch_size", "process_count", "message"),
    [
        (10, 4, "batch size 10 cannot be shared by 4 processes; the nearest that can is 8"),
        (1, 4, "batch size 1 cannot be shared by 4 processes; the nearest that can is 4"),
        (0, 1, "batch size 0 cannot be shared by 1 process; the nearest that can is 1"),
        (-8, 4, "batch size -8 cannot be shared by 4 processes; the nearest that can is 4"),
    ],
)
def test_batch_sizes_that_cannot_be(batch_size: int, process_count: int, message: str) -> None:
    with pytest.raises(InputError) as training:
        Loader(in_memory(), batch_size, seed=0, process_count=process_count)
    with pytest.raises(InputError) as evaluation:
        evaluation_batches(in_memory(), batch_size, process_count=process_count)
    assert str(training.value) == str(evaluation.value) == message


def test_an_empty_split_and_a_negative_seed_are_refused() -> None:
    with pytest.raises(InputError, match="no examples"):
        Loader(in_memory(0), 4, seed=0)
    with pytest.raises(InputError, match="no examples"):
        evaluation_batches(in_memory(0), 4)
    with pytest.raises(InputError, match="seed -1 is negative"):
        Loader(in_memory(), 4, seed=-1)


def test_a_process_that_is_not_one_of_them_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="process 2 is not one of 2"):
        Loader(in_memory(), 4, seed=0, process_index=2, process_count=2)


def test_what_a_record_raises_reaches_the_caller() -> None:
    def decode(row: int) -> dict[str, np.ndarray]:
        raise InputError(f"row {row} is bad")

    with pytest.raises(InputError, match="row . is bad"):
        next(Loader(Records(range(N), decode), 2, seed=0).batches())


def test_speed() -> None:
    # The targets, an order of magnitude above what this takes on two cores.
    split = Arrays({"image": np.zeros((60_000, 28, 28, 1), np.uint8)})
    seek, rate = [], []
    for attempt in range(3):
        start = time.perf_counter()
        batches = Loader(split, 128, seed=attempt).batches(10**6 * 60_000 // 128)
        next(batches)
        seek.append(time.perf_counter() - start)
        start = time.perf_counter()
        for _ in range(400):
            next(batches)
        rate.append(400 * 128 / (time.perf_counter() - start))
    assert min(seek) < 0.05
    assert max(rate) > 1e6
