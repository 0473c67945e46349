import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from dlcore.data import Arrays, Batch, Loader, Records, Split, evaluation_batches
from dlcore.data.text.sequences import Sequences
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


@pytest.mark.parametrize(
    "weights",
    [[1.0] * N, [0, 0, 5, 0, 0, 0, 0, 0, 0, 0], [9, 1, 0, 0.5, 1, 1, 1, 1, 1, 1], range(N)],
)
def test_each_example_comes_as_often_as_its_weight_says(weights: Sequence[float]) -> None:
    """Rounded up or down in each epoch, and exactly in the long run; every epoch is shuffled."""
    shares = np.array(weights) * N / sum(weights)
    epochs = 400
    got = rows(Loader(in_memory(), epochs * N, seed=2, sampling_weights=np.array(weights)).batch(0))
    counts = np.array([np.bincount(got[i : i + N], minlength=N) for i in range(0, len(got), N)])
    assert (np.floor(shares) <= counts).all() and (counts <= np.ceil(shares)).all()
    # Of a Bernoulli variable: six standard deviations.
    rest = shares % 1
    assert (np.abs(counts.mean(0) - shares) <= 6 * np.sqrt(rest * (1 - rest) / epochs)).all()
    orders = {tuple(got[i : i + N]) for i in range(0, len(got), N)}
    assert len(orders) > epochs / 2 or max(shares) == N


def test_draws_by_weight_are_seekable_and_shared_by_processes(split: Split) -> None:
    weights = np.arange(N)
    whole = Loader(in_memory(), 8, seed=5, sampling_weights=weights)
    for step in (0, 3, 10**9):
        parts = [
            Loader(
                split, 8, seed=5, sampling_weights=weights, process_index=index, process_count=2
            ).batch(step)
            for index in range(2)
        ]
        assert [row for part in parts for row in rows(part)] == rows(whole.batch(step))


@pytest.mark.parametrize("weights", [[0] * N, [1] * (N - 1), [-1] + [1] * (N - 1), [np.nan] * N])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="sampling weights must"):
        Loader(in_memory(), 2, seed=0, sampling_weights=np.array(weights))


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


def ragged(count: int = 203) -> Sequences:
    """Sequences of the lengths of sentences, labelled by their index."""
    lengths = np.random.default_rng(7).geometric(0.05, count)
    return Sequences([np.full(length, length) for length in lengths], labels=np.arange(count))


def labels(batch: Batch) -> list[int]:
    return batch["label"].tolist()


@pytest.mark.parametrize("batch_size", [1, 8, 7, 203, 500])
def test_batches_of_similar_length_hold_every_example_once_per_epoch(batch_size: int) -> None:
    split = ragged()
    loader = Loader(split, batch_size, seed=2)
    count = 4 * 203 // batch_size + 1
    got = [label for step in range(count) for label in labels(loader.batch(step))]
    epochs = [got[start : start + 203] for start in range(0, 4 * 203, 203)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(203))] * 4
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_batches_hold_examples_of_similar_length_in_no_order() -> None:
    split = ragged(16 * 8 * 5)  # five pools of 16 batches of 8
    loader = Loader(split, 8, seed=2)
    batches = np.array([labels(loader.batch(step)) for step in range(16 * 5)])
    longest = split.lengths[batches].max(1)
    # The longest of each of a pool's 16 batches if its 128 examples are sorted, in any order.
    order = np.random.Generator(np.random.Philox(key=[2, 0])).permutation(len(split))
    sorted_pools = np.sort(split.lengths[order].reshape(5, 16, 8).reshape(5, 128), axis=1)
    expected = sorted_pools.reshape(5, 16, 8).max(2)
    assert sorted(longest.tolist()) == sorted(expected.ravel().tolist())
    assert np.abs(np.corrcoef(longest, np.arange(80))[0, 1]) < 0.3
    first_pool = longest[:16].tolist()
    assert first_pool not in (sorted(first_pool), sorted(first_pool, reverse=True))


def test_batches_of_similar_length_keep_to_the_grid_of_every_epoch() -> None:
    # One pool per epoch, and epochs that begin in the middle of a batch.
    count, batch_size = 16 * 8 + 5, 8
    split = ragged(count)
    loader = Loader(split, batch_size, seed=2)
    for epoch in range(4):
        steps = range(-(-epoch * count // batch_size), (epoch + 1) * count // batch_size)
        lengths = np.sort([split.lengths[labels(loader.batch(step))] for step in steps])
        lengths = lengths[np.lexsort((lengths[:, -1], lengths[:, 0]))]
        assert (lengths[:-1, -1] <= lengths[1:, 0]).all()


def test_batches_of_similar_length_pad_little() -> None:
    split = ragged(2000)
    loader = Loader(split, 16, seed=0)
    batches = [loader.batch(step)["tokens"] for step in range(125)]
    assert len({tokens.shape for tokens in batches}) == len(split.buckets) == 4
    anyhow = np.random.default_rng(0).permutation(2000).reshape(125, 16)
    padded = sum(split.gather(indices)["tokens"].size for indices in anyhow)
    assert sum(tokens.size for tokens in batches) < padded / 2


def test_batches_need_not_be_of_similar_length() -> None:
    split = ragged()
    loader = Loader(split, 8, seed=2, similar_lengths=False)
    as_any = Loader(Arrays({"label": np.arange(203)}), 8, seed=2)
    for step in range(60):
        batch = loader.batch(step)
        assert labels(batch) == labels(as_any.batch(step))
        assert batch["tokens"].shape[1] >= split.lengths[labels(batch)].max()


@pytest.mark.parametrize("step", [0, 1, 24, 25, 26, 10**9])
def test_any_step_of_ragged_batches_can_be_had_at_any_time(step: int) -> None:
    loader = Loader(ragged(), 8, seed=1)
    ahead = next(Loader(ragged(), 8, seed=1).batches(step))
    loader.batch(5)
    for name, array in loader.batch(step).items():
        np.testing.assert_array_equal(array, ahead[name])


@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_processes_pad_their_parts_as_the_global_batch(process_count: int) -> None:
    def all_of(whole, parts) -> None:
        for expected, *got in zip(whole, *parts, strict=True):
            for name, array in expected.items():
                np.testing.assert_array_equal(array, np.concatenate([part[name] for part in got]))

    share = [{"process_index": i, "process_count": process_count} for i in range(process_count)]
    steps = range(60)
    all_of(
        map(Loader(ragged(), 8, seed=5).batch, steps),
        [map(Loader(ragged(), 8, seed=5, **kind).batch, steps) for kind in share],
    )
    all_of(
        evaluation_batches(ragged(), 8), [evaluation_batches(ragged(), 8, **kind) for kind in share]
    )


def test_evaluation_of_ragged_examples_keeps_their_order() -> None:
    split = ragged()
    got, weights = [], []
    for batch in evaluation_batches(split, 8):
        got += labels(batch)
        weights += batch["weight"].tolist()
    assert got == [*range(203), *[0] * 5] and weights == [1.0] * 203 + [0.0] * 5
    by_length = split.subset(np.argsort(split.lengths))
    sizes = [
        sum(batch["tokens"].size for batch in evaluation_batches(part, 8))
        for part in (split, by_length)
    ]
    assert sizes[1] < 0.6 * sizes[0]
