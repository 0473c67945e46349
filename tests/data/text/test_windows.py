"""Shuffled windows of a text."""

import numpy as np
import pytest

from dlcore.data import Loader
from dlcore.data.text import Windows
from dlcore.errors import InputError


def test_targets_are_the_tokens_after_the_inputs():
    windows = Windows(np.arange(100, 112), 4)
    assert len(windows) == 2  # the third would lack its last target
    batch = windows.gather(np.array([1, 0]))
    assert batch["inputs"].tolist() == [[104, 105, 106, 107], [100, 101, 102, 103]]
    assert batch["targets"].tolist() == [[105, 106, 107, 108], [101, 102, 103, 104]]
    assert batch["inputs"].dtype == np.int32 and batch["reset"].tolist() == [True, True]


@pytest.mark.parametrize(("tokens", "window"), [(5, 4), (9, 4), (10, 4), (12, 4), (13, 4)])
def test_all_windows_are_whole(tokens, window):
    windows = Windows(np.arange(tokens), window)
    assert len(windows) == (tokens - 1) // window
    batch = windows.gather(np.arange(len(windows)))
    np.testing.assert_array_equal(batch["targets"], batch["inputs"] + 1)


def test_a_loader_gives_each_window_once_per_epoch():
    loader = Loader(Windows(np.arange(81), 4), 5, seed=0)
    starts = np.concatenate([loader.batch(step)["inputs"][:, 0] for step in range(4)])
    assert sorted(starts.tolist()) == list(range(0, 80, 4)) and (np.diff(starts) != 4).any()


def test_a_subset_keeps_the_chosen_windows():
    part = Windows(np.arange(41), 4).subset(np.array([7, 2]))
    assert part.gather(np.array([0, 1]))["inputs"][:, 0].tolist() == [28, 8]


@pytest.mark.parametrize(
    ("tokens", "window", "message"),
    [
        (4, 4, "a text of 4 tokens has no window of 4"),
        (9, 0, "window 0 is too short; give 1 token or more"),
    ],
)
def test_bad_input_is_one_clear_line(tokens, window, message):
    with pytest.raises(InputError, match=message) as error:
        Windows(np.arange(tokens), window)
    assert "\n" not in str(error.value)
