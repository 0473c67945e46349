"""--binarise, which jobs that model bits share."""

import dataclasses
import itertools

import numpy as np
import pytest

from dlcore import launch

GREY = np.random.default_rng(0).integers(1, 255, (26, 6, 6), np.uint8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(launch.BitsConfig, launch.Config, batch_size=8):
    pass


class Bits(launch.Task[Config, None]):
    def data(self):
        images = self.images()
        self.test = images.test
        return self.split_data(images.train, images.test, None)

    def init(self, key):
        return {"params": {}}

    def metrics(self, state, batch):
        return {}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "grey.npz"
    labels = np.zeros(26, np.int32)
    np.savez(path, x_train=GREY[:20], y_train=labels[:20], x_test=GREY[20:], y_test=labels[20:])
    return str(path)


def images(path, **options):
    """The images of two epochs of training, of validation and of the test."""
    data = Bits(Config(data_path=path, batch_size=20, **options)).data()
    train = [batch["image"] for batch in itertools.islice(data.train(0), 2)]
    held_out = data.validation and next(data.validation())["image"]
    return train, held_out, next(data.test())["image"][:6]


def ordered(batch):
    return sorted(map(bytes, batch))


def test_without_it_pixels_stay_grey(path):
    train, _, test = images(path)
    assert ordered(train[0]) == ordered(train[1]) == ordered(GREY[:20])
    np.testing.assert_array_equal(test[..., 0], GREY[20:])


def test_static_bits_are_the_same_in_every_epoch_and_run(path):
    (first, second), _, test = images(path, binarise="static")
    assert set(np.unique(first)) == set(np.unique(test)) == {0, 255}
    assert ordered(first) == ordered(second)
    (other, _), _, tested = images(path, binarise="static", seed=5)
    assert ordered(first) == ordered(other)
    np.testing.assert_array_equal(test, tested)


def test_dynamic_bits_change_where_a_model_is_trained_alone(path):
    options = {"binarise": "dynamic", "validation": 0.5}
    train, held_out, test = images(path, **options)
    for batch in (*train, held_out, test):
        assert set(np.unique(batch)) == {0, 255}
    assert ordered(train[0]) != ordered(train[1])
    _, again, tested = images(path, **options)
    np.testing.assert_array_equal(held_out, again)
    np.testing.assert_array_equal(test, tested)
    np.testing.assert_array_equal(test, images(path, binarise="static")[2])
