"""Planted mixtures."""

import numpy as np
import pytest

from dlcore.data.points import load_points
from dlcore.errors import InputError


def test_the_ring_has_eight_equal_modes_and_is_the_same_always():
    mixture, splits = load_points("ring")
    assert {name: len(split) for name, split in splits.items()} == {"train": 50_000, "test": 2_500}
    np.testing.assert_allclose(np.linalg.norm(mixture.centres, axis=1), 2)
    points, labels = (splits["train"].arrays[name] for name in ("point", "label"))
    assert points.dtype == np.float32 and labels.dtype == np.int32
    np.testing.assert_allclose(np.bincount(labels) / len(labels), 1 / 8, atol=0.005)
    apart = points - mixture.centres[labels]
    np.testing.assert_allclose(apart.std(0), mixture.deviation, rtol=0.02)
    np.testing.assert_allclose(apart.mean(0), 0, atol=1e-3)
    assert not np.isin(splits["test"].arrays["point"], points).all(1).any()
    again = load_points("ring")[1]["test"].arrays["point"]
    np.testing.assert_array_equal(again, splits["test"].arrays["point"])
    with pytest.raises(InputError, match="unknown mixture 'square'"):
        load_points("square")
