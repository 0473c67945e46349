import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from dlcore.data import (
    Arrays,
    Records,
    balanced_weights,
    channel_moments,
    evenly_spaced,
    labels_of,
)
from dlcore.data.pictures import StoredImage


def test_moments_are_those_of_all_pixels_together():
    images = np.random.default_rng(0).integers(0, 256, (600, 3, 5, 2), np.uint8)
    images[..., 1] //= 4
    mean, deviation = channel_moments(Arrays({"image": images}))
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(deviation, images.std((0, 1, 2), dtype=np.float64), rtol=1e-9)


def test_a_constant_channel_has_deviation_zero():
    mean, deviation = channel_moments(Arrays({"image": np.full((4, 2, 2, 1), 255, np.uint8)}))
    assert (mean, deviation) == (255, 0)


def test_an_evenly_spaced_sample_meets_every_class_of_a_sorted_split():
    labels = np.repeat(np.arange(10), 50)
    split = Arrays({"label": labels})
    sample = evenly_spaced(split, 25)
    assert len(sample) == 25
    assert set(sample.arrays["label"]) == set(range(10))
    assert evenly_spaced(split, 500) is split


@pytest.mark.parametrize("missing", [False, True])
def test_balanced_weights_are_scikit_learns(missing):
    labels = np.repeat([0, 2, 3], [50, 3, 7])
    classes = 5 if missing else 4
    weights = balanced_weights(labels, classes)
    expected = compute_class_weight("balanced", classes=np.array([0, 2, 3]), y=labels)
    np.testing.assert_allclose(weights[[0, 2, 3]], expected)
    assert weights[1] == 1 and len(weights) == classes
    # Each class has the same share, and an example weighs 1 on average.
    assert np.mean(weights[labels]) == pytest.approx(1)
    np.testing.assert_allclose(np.bincount(labels, weights[labels])[[0, 2, 3]], 20)


def test_labels_are_had_without_decoding():
    def decode(stored):
        raise AssertionError("decoded")

    stored = [StoredImage(b"", label, "") for label in (3, 1, 2)]
    records = Records(stored, decode)
    arrays = Arrays({"label": np.array([3, 1, 2], np.int32)})
    for split in (records, arrays):
        assert labels_of(split).tolist() == [3, 1, 2]
        assert labels_of(split.subset(np.array([2, 0]))).tolist() == [2, 3]

    class Other:
        """A split of another kind."""

        def __len__(self):
            return 1000

        def gather(self, indices):
            return {"label": indices * 2}

    assert labels_of(Other()).tolist() == list(range(0, 2000, 2))
