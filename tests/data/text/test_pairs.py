import itertools

import numpy as np
import pytest

from dlcore.data import Loader, evaluation_batches
from dlcore.data.loader import Ragged
from dlcore.data.sources import Batch
from dlcore.data.text import Pairs, TokenLoader
from dlcore.errors import InputError

SOURCES = [[5, 6], [7], [8, 9, 10, 11], []]
TARGETS = [[15], [16, 17, 18], [19, 20], [21]]
BUCKETS = ((3, 2), (3, 4), (6, 5))


def sentences(count: int, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pairs as long as captions in byte pairs; the first id of a source is the pair's number."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(2.65, 0.26, count))
    sides = (np.maximum(1, lengths * np.exp(rng.normal(0, 0.15, count))) for _ in range(2))
    sources, targets = ([rng.integers(2, 99, int(n)) for n in side] for side in sides)
    for number, source in enumerate(sources):
        source[0] = 100 + number
    return sources, targets


@pytest.fixture(scope="module")
def captions() -> Pairs:
    return Pairs(*sentences(3000))


def numbers(batch: Batch) -> list[int]:
    """The numbers of the pairs in a batch, without the rows that only fill it."""
    return (batch["source"][batch["weight"] > 0, 0] - 100).tolist()


def padding(batches: list[Batch]) -> float:
    """The share of the places of both sides that hold no token."""
    places = sum(batch["source"].size + batch["targets"].size for batch in batches)
    tokens = sum(
        (batch["weight"] * (batch["source_length"] + batch["target_length"])).sum()
        for batch in batches
    )
    return float(1 - tokens / places)


def shape(batch: Batch) -> tuple[int, ...]:
    return (*batch["source"].shape, batch["targets"].shape[1])


def epoch(loader: TokenLoader, number: int = 0) -> list[Batch]:
    first = number * loader.steps_per_epoch
    return [loader.batch(first + place) for place in range(loader.steps_per_epoch)]


def test_a_batch_worked_by_hand() -> None:
    pairs = Pairs(SOURCES, TARGETS, buckets=BUCKETS)
    batch = pairs.gather(np.array([1, 0, 3]))
    assert {name: array.tolist() for name, array in batch.items()} == {
        "source": [[7, 1, 0], [5, 6, 1], [1, 0, 0]],
        "source_length": [2, 3, 1],
        "inputs": [[1, 16, 17, 18], [1, 15, 0, 0], [1, 21, 0, 0]],
        "targets": [[16, 17, 18, 1], [15, 1, 0, 0], [21, 1, 0, 0]],
        "target_length": [4, 2, 2],
    }
    assert {array.dtype.name for array in batch.values()} == {"int32"}
    assert pairs.bucket_of.tolist() == [0, 1, 2, 0] and pairs.lengths.tolist() == [5, 7, 11, 5]
    assert isinstance(pairs, Ragged) and len(pairs) == 4 and pairs.dropped == 0


def test_the_bucket_is_that_of_the_whole_batch() -> None:
    pairs = Pairs(SOURCES, TARGETS, buckets=BUCKETS)
    assert pairs.gather(np.array([0]))["source"].shape == (1, 3)
    batch = pairs.gather(np.array([0]), among=np.array([0, 2]))
    assert batch["source"].tolist() == [[5, 6, 1, 0, 0, 0]]
    assert batch["inputs"].tolist() == [[1, 15, 0, 0, 0]]


def test_a_subset_keeps_the_buckets() -> None:
    pairs = Pairs(SOURCES, TARGETS, buckets=BUCKETS)
    part = pairs.subset(np.array([2, 0]))
    assert part.buckets == BUCKETS and part.lengths.tolist() == [11, 5] and len(pairs) == 4
    for name, array in part.gather(np.array([1, 0])).items():
        np.testing.assert_array_equal(array, pairs.gather(np.array([0, 2]))[name])


def test_batches_share_no_memory() -> None:
    pairs = Pairs(SOURCES, TARGETS)
    before = pairs.gather(np.arange(4))
    for array in pairs.gather(np.arange(4)).values():
        array[:] = -1
    for name, array in pairs.gather(np.arange(4)).items():
        np.testing.assert_array_equal(array, before[name])


def test_longer_pairs_are_dropped_and_counted() -> None:
    pairs = Pairs(SOURCES, TARGETS, limit=3)
    assert (len(pairs), pairs.dropped) == (2, 2)
    assert pairs.gather(np.arange(2))["source"].tolist() == [[5, 6, 1], [1, 0, 0]]
    assert Pairs(SOURCES, TARGETS, limit=5).dropped == 0


def test_longer_pairs_are_cut_before_their_end() -> None:
    pairs = Pairs(SOURCES, TARGETS, limit=3, longer="cut")
    batch = pairs.gather(np.arange(4))
    assert batch["source"].tolist() == [[5, 6, 1], [7, 1, 0], [8, 9, 1], [1, 0, 0]]
    assert batch["inputs"].tolist() == [[1, 15, 0], [1, 16, 17], [1, 19, 20], [1, 21, 0]]
    assert batch["targets"].tolist() == [[15, 1, 0], [16, 17, 1], [19, 20, 1], [21, 1, 0]]
    assert pairs.dropped == 0


def test_every_pair_comes_back_whole(captions: Pairs) -> None:
    sources, targets = sentences(3000)
    for chosen in np.array_split(np.random.default_rng(1).permutation(3000), 20):
        batch = captions.gather(chosen)
        for row, index in enumerate(chosen):
            source, target = [*sources[index], 1], [*targets[index], 1]
            for name, expected in (
                *(("source", source), ("targets", target)),
                ("inputs", [1, *target[:-1]]),
            ):
                array = batch[name][row]
                assert array[: len(expected)].tolist() == expected
                assert not array[len(expected) :].any()
            assert batch["source_length"][row] == len(source)
            assert batch["target_length"][row] == len(target)


def test_buckets_are_the_best_of_all_quantiles(captions: Pairs) -> None:
    sides = np.stack([captions.source_lengths, captions.target_lengths], axis=1)

    def tokens(buckets: np.ndarray) -> int:
        places = (sides[:, None] > buckets).any(axis=2).sum(axis=1)
        return int(buckets[places].sum())

    shares = [*np.arange(1, 10) / 10, 0.97, 0.99]
    quantiles = np.quantile(sides, shares, axis=0, method="higher")
    longest = sides.max(axis=0)
    others = min(
        tokens(np.stack([*quantiles[[*places]], longest]))
        for places in itertools.combinations(range(len(shares)), 3)
    )
    assert len(captions.buckets) == 4 and captions.buckets[-1] == tuple(longest)
    assert tokens(np.array(captions.buckets)) <= others
    assert {type(length) for bucket in captions.buckets for length in bucket} == {int}


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [([4] * 9, ((5, 5),)), ([2, 2, 7], ((3, 3), (8, 8))), ([], ((1, 1),))],
)
def test_fewer_lengths_need_fewer_buckets(lengths: list[int], expected: object) -> None:
    sides = [[9] * length for length in lengths]
    assert Pairs(sides, sides).buckets == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": TARGETS[:3]}, "expected a target per source, given 4, 3"),
        ({"buckets": ((3, 4), (5, 3))}, "do not rise, or do not hold all pairs"),
        ({"buckets": ((3, 2), (4, 5))}, "do not rise, or do not hold all pairs"),
    ],
)
def test_what_does_not_match_is_a_programming_error(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        Pairs(**{"sources": SOURCES, "targets": TARGETS, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limit": 1}, "length limit 1 leaves no room for a token; give 2 or more"),
        ({"limit": 0, "longer": "cut"}, "length limit 0 leaves no room"),
        (
            {"sources": [[2] * 9] * 4, "limit": 5},
            "all 4 pairs are longer than the limit of 5 tokens; raise it",
        ),
        ({"longer": "keep"}, "unknown treatment of longer pairs 'keep'; choose one of: cut, drop"),
    ],
)
def test_limits_that_cannot_be_kept_to(arguments, message) -> None:
    with pytest.raises(InputError, match=message) as error:
        Pairs(**{"sources": SOURCES, "targets": TARGETS, **arguments})
    assert "\n" not in str(error.value)


def test_every_pair_comes_exactly_once_per_epoch(captions: Pairs) -> None:
    loader = TokenLoader(captions, 1000, seed=3)
    for number in range(3):
        batches = epoch(loader, number)
        assert sorted(sum(map(numbers, batches), [])) == [*range(3000)]
        assert sum((b["weight"] * b["target_length"]).sum() for b in batches) == (
            loader.tokens_per_epoch
        )


def test_shapes_are_few_and_hold_the_tokens_that_were_asked_for(captions: Pairs) -> None:
    loader = TokenLoader(captions, 1000, seed=0, multiple=4)
    batches = epoch(loader)
    assert {shape(batch) for batch in batches} == {*loader.shapes} and len(loader.shapes) <= 4
    for (rows, *lengths), bucket in zip(loader.shapes, captions.buckets, strict=True):
        assert tuple(lengths) == bucket and rows % 4 == 0
        assert rows * lengths[1] <= 1000 < (rows + 4) * lengths[1]
    assert all(batch["weight"].dtype == np.float32 for batch in batches)


def test_little_is_padded(captions: Pairs) -> None:
    assert padding(epoch(TokenLoader(captions, 1000, seed=0))) < 0.25
    # In one shape more than half would be.
    assert padding([captions.gather(np.arange(3000)) | {"weight": np.ones(3000)}]) > 0.5


def test_a_batch_has_at_least_the_rows_it_must_be_a_multiple_of() -> None:
    pairs = Pairs([[2] * 9] * 5, [[3] * 9] * 5)
    assert TokenLoader(pairs, 3, seed=0).shapes == ((1, 10, 10),)
    loader = TokenLoader(pairs, 3, seed=0, multiple=4)
    assert loader.shapes == ((4, 10, 10),) and loader.steps_per_epoch == 2
    assert sorted(batch["weight"].tolist() for batch in epoch(loader)) == [[1, 0, 0, 0], [1] * 4]


def test_rows_that_fill_a_batch_are_whole_pairs(captions: Pairs) -> None:
    for batch in epoch(TokenLoader(captions, 1000, seed=0)):
        filling = batch["weight"] == 0
        for name, array in batch.items():
            if name != "weight":
                assert (array[filling] == array[0]).all()


def test_orders_differ_by_epoch_and_seed_alone(captions: Pairs) -> None:
    first, again, other = (TokenLoader(captions, 1000, seed=seed) for seed in (0, 0, 1))
    steps = first.steps_per_epoch

    def order(loader: TokenLoader, number: int) -> list[list[int]]:
        return [numbers(batch) for batch in epoch(loader, number)]

    assert order(first, 0) == order(again, 0) != order(other, 0)
    assert order(first, 0) != order(first, 1)
    # Pairs meet others in the next epoch.
    sets = [{frozenset(batch) for batch in order(first, number)} for number in (0, 1)]
    assert not sets[0] & sets[1]
    # The buckets take turns, in another order each time.
    shapes = [[shape(batch) for batch in epoch(first, number)] for number in (0, 1)]
    assert shapes[0] != shapes[1] and sorted(shapes[0]) == sorted(shapes[1])
    assert sum(a != b for a, b in itertools.pairwise(shapes[0])) > steps / 3


def test_a_batch_is_a_function_of_its_step(captions: Pairs) -> None:
    loader = TokenLoader(captions, 1000, seed=0)
    start = 2 * loader.steps_per_epoch - 3
    stream = loader.batches(start)
    # A fresh loader, in falling order.
    fresh = TokenLoader(captions, 1000, seed=0)
    expected = [fresh.batch(step) for step in reversed(range(start, start + 6))][::-1]
    for want in expected:
        for name, array in next(stream).items():
            np.testing.assert_array_equal(array, want[name])


@pytest.mark.parametrize("processes", [2, 4])
def test_the_slices_of_processes_join_to_the_global_batch(captions: Pairs, processes: int) -> None:
    whole = TokenLoader(captions, 1000, seed=0, multiple=4)
    parts = [
        TokenLoader(
            captions, 1000, seed=0, multiple=4, process_index=index, process_count=processes
        )
        for index in range(processes)
    ]
    for step in range(whole.steps_per_epoch):
        batch, slices = whole.batch(step), [part.batch(step) for part in parts]
        for name, array in batch.items():
            np.testing.assert_array_equal(array, np.concatenate([part[name] for part in slices]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": 0}, "a batch of 0 tokens holds nothing; give 1 or more"),
        ({"seed": -1}, "seed -1 is negative; give 0 or more"),
        ({"multiple": 0}, "batch size 0 cannot be shared by 1 process"),
        ({"multiple": 3, "process_count": 2}, "batch size 3 cannot be shared by 2 processes"),
        ({"pairs": Pairs([], [])}, "the split has no pairs; choose a data set that has some"),
    ],
)
def test_loaders_that_cannot_be_made(arguments, message) -> None:
    with pytest.raises(InputError, match=message) as error:
        TokenLoader(**{"pairs": Pairs(SOURCES, TARGETS), "tokens": 9, "seed": 0, **arguments})
    assert "\n" not in str(error.value)


def test_evaluation_takes_every_pair_once_in_order(captions: Pairs) -> None:
    part = captions.subset(np.argsort(captions.lengths))
    batches = [*evaluation_batches(part, 64)]
    assert sum(map(numbers, batches), []) == np.argsort(captions.lengths).tolist()
    assert {len(batch["weight"]) for batch in batches} == {64}
    assert {shape(batch)[1:] for batch in batches} == {*captions.buckets}
    assert padding(batches) < 0.25


def test_batches_of_a_number_of_pairs_are_bucketed_too(captions: Pairs) -> None:
    loader = Loader(captions, 60, seed=0)
    batches = [loader.batch(step) for step in range(50)]
    assert sorted(sum(map(numbers, batches), [])) == [*range(3000)]
    assert padding(batches) < 0.25
