import numpy as np
import pytest

from dlcore.data.text.sequences import Sequences
from dlcore.errors import InputError

TOKENS = [[5, 6], [7], [8, 9, 10, 11, 12], [13, 14, 15]]
TAGS = [[1, 2], [3], [4, 5, 6, 7, 8], [9, 10, 11]]


def test_gathered_sequences_are_padded_to_the_smallest_bucket_that_holds_them() -> None:
    split = Sequences(TOKENS, labels=[0, 1, 2, 3], tags=TAGS, buckets=(2, 4, 6))
    batch = split.gather(np.array([3, 0]))
    assert {name: array.tolist() for name, array in batch.items()} == {
        "tokens": [[13, 14, 15, 0], [5, 6, 0, 0]],
        "tags": [[9, 10, 11, 0], [1, 2, 0, 0]],
        "length": [3, 2],
        "label": [3, 0],
    }
    assert {array.dtype.name for array in batch.values()} == {"int32"}
    assert split.gather(np.array([0, 1]))["tokens"].shape == (2, 2)
    assert split.gather(np.array([2]))["tokens"].tolist() == [[8, 9, 10, 11, 12, 0]]


def test_a_batch_holds_what_the_split_has() -> None:
    assert set(Sequences(TOKENS).gather(np.array([0]))) == {"tokens", "length"}
    assert set(Sequences(TOKENS, labels=[0] * 4).gather(np.array([0]))) == {
        *("tokens", "length", "label")
    }


def test_padding_can_be_decided_by_a_larger_batch() -> None:
    split = Sequences(TOKENS, buckets=(2, 4, 6))
    batch = split.gather(np.array([1]), among=np.array([1, 2]))
    assert batch["tokens"].tolist() == [[7, 0, 0, 0, 0, 0]]


def test_a_longer_sequence_is_cut_at_the_limit() -> None:
    split = Sequences(TOKENS, tags=TAGS, limit=2)
    assert split.lengths.tolist() == [2, 1, 2, 2]
    batch = split.gather(np.array([2, 1]))
    assert batch["tokens"].tolist() == [[8, 9], [7, 0]]
    assert batch["tags"].tolist() == [[4, 5], [3, 0]]
    assert batch["length"].tolist() == [2, 1]


def test_there_are_at_most_four_buckets_at_quantiles_of_the_lengths() -> None:
    # Lengths 1 to 100: the shares 0.5, 0.8 and 0.95, and the longest.
    split = Sequences([np.ones(length, int) for length in range(1, 101)])
    assert split.buckets == (51, 81, 96, 100)
    assert all(type(bucket) is int for bucket in split.buckets)
    assert Sequences([[1, 2]] * 9).buckets == (2,)
    assert Sequences([np.ones(length, int) for length in range(1, 101)], limit=60).buckets == (
        *(51, 60),
    )


def test_every_sequence_comes_back_whole() -> None:
    rng = np.random.default_rng(0)
    tokens = [rng.integers(2, 99, length) for length in rng.integers(1, 60, 200)]
    split = Sequences(tokens)
    order = rng.permutation(200)
    for chosen in (order[:50], order[50:51], order[51:]):
        batch = split.gather(chosen)
        assert batch["tokens"].shape[1] in split.buckets
        for row, index in enumerate(chosen):
            length = len(tokens[index])
            assert batch["length"][row] == length
            assert batch["tokens"][row, :length].tolist() == tokens[index].tolist()
            assert not batch["tokens"][row, length:].any()


def test_a_subset_keeps_the_buckets() -> None:
    split = Sequences(TOKENS, labels=[0, 1, 2, 3], tags=TAGS)
    part = split.subset(np.array([3, 1]))
    assert len(part) == 2 and part.lengths.tolist() == [3, 1] and part.buckets == split.buckets
    for name, array in part.gather(np.array([1, 0])).items():
        np.testing.assert_array_equal(array, split.gather(np.array([1, 3]))[name])
    assert len(split) == 4


def test_batches_share_no_memory() -> None:
    split = Sequences(TOKENS, labels=[0, 1, 2, 3], tags=TAGS)
    before = split.gather(np.arange(4))
    for array in split.gather(np.arange(4)).values():
        array[:] = -1
    for name, array in split.gather(np.arange(4)).items():
        np.testing.assert_array_equal(array, before[name])


def test_an_empty_split_has_length_0() -> None:
    assert len(Sequences([])) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": [[1], [], [2]]}, "sequence 1 of 3 is empty"),
        ({"tokens": TOKENS, "labels": [1, 2]}, r"expected labels \[4\], given \(2,\)"),
        ({"tokens": TOKENS, "tags": TAGS[:3]}, "expected one tag per token"),
        ({"tokens": TOKENS, "tags": [[1], *TAGS[1:]]}, "expected one tag per token"),
        ({"tokens": TOKENS, "buckets": (2, 4)}, r"\(2, 4\) do not hold a sequence of 5 tokens"),
    ],
)
def test_what_does_not_match_is_a_programming_error(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        Sequences(**arguments)


def test_a_limit_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="length limit 0 keeps no token; give 1 or more"):
        Sequences(TOKENS, limit=0)
