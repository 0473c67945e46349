import numpy as np

from dlcore.data import Arrays, channel_moments, evenly_spaced


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
