import itertools

import numpy as np
import pytest

from dlcore.data.text.stream import Stream
from dlcore.errors import InputError

EOS = 1


def text(count: int) -> np.ndarray:
    """Tokens that say where they stand, none of them <unk> or <eos>."""
    return np.arange(2, 2 + count, dtype=np.int32)


def rows_of(tokens: np.ndarray, batch_size: int) -> list[list[tuple[int, int]]]:
    """The (input, target) pairs of each row by their definition."""
    pairs = list(zip([EOS, *tokens[:-1].tolist()], tokens.tolist(), strict=True))
    bounds = [row * len(tokens) // batch_size for row in range(batch_size + 1)]
    return [pairs[first:last] for first, last in itertools.pairwise(bounds)]


@pytest.mark.parametrize("window", [1, 3, 4, 50])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize("count", [4, 13, 24])
def test_each_token_is_predicted_once_by_the_row_that_goes_on(
    count: int, batch_size: int, window: int
) -> None:
    stream = Stream(text(count), batch_size, window)
    rows: list[list[tuple[int, int]]] = [[] for _ in range(batch_size)]
    for step in range(stream.epoch_steps):
        batch = stream.batch(step)
        assert {name: (array.dtype.str[1:], array.shape) for name, array in batch.items()} == {
            "inputs": ("i4", (batch_size, window)),
            "targets": ("i4", (batch_size, window)),
            "weight": ("f4", (batch_size, window)),
            "reset": ("b1", (batch_size,)),
        }
        assert (batch["reset"] == (step == 0)).all()
        real = batch["weight"] == 1
        assert (batch["weight"][~real] == 0).all()
        assert not batch["inputs"][~real].any() and not batch["targets"][~real].any()
        for row in range(batch_size):
            pairs = zip(batch["inputs"][row].tolist(), batch["targets"][row].tolist(), strict=True)
            rows[row] += itertools.compress(pairs, real[row])
    assert rows == rows_of(text(count), batch_size)


def test_by_hand() -> None:
    stream = Stream(np.array([5, 6, 7, 8, 9]), 2, 2)
    assert stream.epoch_steps == 2
    first, second = stream.batch(0), stream.batch(1)
    assert first["inputs"].tolist() == [[1, 5], [6, 7]]
    assert first["targets"].tolist() == [[5, 6], [7, 8]]
    assert second["inputs"].tolist() == [[0, 0], [8, 0]]
    assert second["targets"].tolist() == [[0, 0], [9, 0]]
    assert second["weight"].tolist() == [[0, 0], [1, 0]]


def test_a_row_that_ends_is_followed_by_nothing_of_the_next() -> None:
    # Rows of 2 and 3 tokens in one window of 3: the third place of the first row is padding.
    batch = Stream(np.array([5, 6, 7, 8, 9]), 2, 3).batch(0)
    assert batch["inputs"].tolist() == [[1, 5, 0], [6, 7, 8]]
    assert batch["weight"].tolist() == [[1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize("step", [0, 1, 6, 7, 10**12])
def test_any_step_can_be_had_at_any_time_and_epochs_repeat(step: int) -> None:
    stream = Stream(text(101), 5, 3)
    assert stream.epoch_steps == 7
    ahead, again = next(stream.batches(step)), stream.batch(step % 7)
    for name, array in Stream(text(101), 5, 3).batch(step).items():
        np.testing.assert_array_equal(array, ahead[name])
        np.testing.assert_array_equal(array, again[name])


@pytest.mark.parametrize("process_count", [2, 3, 6])
def test_processes_share_the_same_global_batches(process_count: int) -> None:
    whole = Stream(text(100), 6, 4)
    parts = [
        Stream(text(100), 6, 4, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    assert {part.epoch_steps for part in parts} == {whole.epoch_steps}
    for step in range(2 * whole.epoch_steps):
        batches = [part.batch(step) for part in parts]
        for name, array in whole.batch(step).items():
            np.testing.assert_array_equal(
                array, np.concatenate([batch[name] for batch in batches]), name
            )


def test_evaluation_is_one_epoch() -> None:
    stream = Stream(text(50), 4, 5)
    batches = list(Stream(text(50), 4, 5).epoch())
    assert len(batches) == stream.epoch_steps
    assert sum(batch["weight"].sum() for batch in batches) == 50
    for step, batch in enumerate(batches):
        for name, array in stream.batch(step).items():
            np.testing.assert_array_equal(array, batch[name])


def test_batches_share_no_memory() -> None:
    tokens = text(20)
    stream = Stream(tokens, 2, 5)
    before = stream.batch(0)["inputs"].copy()
    for name in ("inputs", "targets"):
        stream.batch(0)[name][:] = -1
    np.testing.assert_array_equal(stream.batch(0)["inputs"], before)
    np.testing.assert_array_equal(tokens, text(20))


@pytest.mark.parametrize(
    ("count", "batch_size", "window", "processes", "message"),
    [
        (19, 20, 5, 1, "19 tokens cannot fill the 20 rows .* a batch size of at most 19"),
        (0, 1, 5, 1, "a text of 0 tokens"),
        (20, 4, 0, 1, "window 0 is too short; give 1 token or more"),
        (20, 5, 5, 2, "batch size 5 cannot be shared by 2 processes"),
        (20, 0, 5, 1, "batch size 0 cannot be shared by 1 process"),
    ],
)
def test_what_cannot_be(count, batch_size, window, processes, message) -> None:
    with pytest.raises(InputError, match=message):
        Stream(text(count), batch_size, window, process_count=processes)


@pytest.mark.parametrize("tokens", [np.zeros(5), np.zeros((5, 1), int)])
def test_what_is_no_stream_of_ids_is_a_programming_error(tokens: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected integer ids"):
        Stream(tokens, 1, 1)
