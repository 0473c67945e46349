"""The picture of a machine's memory over time."""

import numpy as np
import pytest

from dlcore.report.plots import plot_memory
from dlcore.report.plots.memory import rows_in_use


@pytest.mark.parametrize(
    ("used", "expected"),
    [([1, 2], [1, 2]), ([4, 0], [4, 0]), ([0], [0]), ([0, 2, 4], [2, 3, 4, 0]), ([], range(5))],
)
def test_unused_rows_of_the_ring_are_left_out(used, expected):
    weights = np.zeros((5, 3))
    weights[used, 1] = 0.7
    assert rows_in_use([weights]) == [*expected]


def test_rows_of_all_heads_are_shown():
    first, second = np.zeros((2, 9, 2))
    first[1], second[3] = 1, 1
    assert rows_in_use([first, second]) == [1, 2, 3]


@pytest.mark.parametrize("heads", [{}, {"write weights": np.eye(40)[:, :7]}])
def test_the_picture_is_written(tmp_path, heads):
    pictures = {"inputs": np.ones((3, 7)), "outputs": np.full((1, 7), -2.0)}
    plot_memory(pictures, heads, tmp_path / "memory.png", title="copy of $5")
    assert (tmp_path / "memory.png").stat().st_size > 1000
