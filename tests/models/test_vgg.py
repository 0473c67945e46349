"""VGG against its paper and PyTorch."""

import collections

import jax
import numpy as np
import pytest
import torch_twin
from traced import size_of, trace

from dlcore.errors import InputError
from dlcore.models.cnn import vgg
from dlcore.models.cnn.vgg import VGG, VGG_NAMES

# Table 1 of the paper, column by column: filter size and features of the convolutions, M a pool.
TABLE = {
    "A": "3-64 M 3-128 M 3-256 3-256 M 3-512 3-512 M 3-512 3-512 M",
    "B": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 M 3-512 3-512 M 3-512 3-512 M",
    "C": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 1-256 M 3-512 3-512 1-512 M 3-512 3-512 1-512 M",
    "D": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 3-256 M 3-512 3-512 3-512 M 3-512 3-512 3-512 M",
    "E": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 3-256 3-256 M 3-512 3-512 3-512 3-512 M "
    "3-512 3-512 3-512 3-512 M",
}
COUNTS = {
    "A": 132_863_336,
    "B": 133_047_848,
    # B and three 1x1 convolutions, (256 + 1) 256 + 2 (512 + 1) 512.
    "C": 133_047_848 + 65_792 + 525_312,
    "D": 138_357_544,
    "E": 143_667_240,
}


def rows(config):
    """(name, filter size, features) of each layer up to pool5, by the paper's table."""
    stage, layer = 1, 1
    for entry in TABLE[config].split():
        if entry == "M":
            yield f"pool{stage}", 2, None
            stage, layer = stage + 1, 1
        else:
            size, features = entry.split("-")
            yield f"conv{stage}_{layer}", int(size), int(features)
            layer += 1


@pytest.mark.parametrize("config", TABLE)
def test_parameters_and_maps(config):
    variables, shapes = trace(VGG(1000, config), 224)
    expected, size, channels, by_hand = [], 224, 3, 0
    for name, window, features in rows(config):
        if features is None:
            size //= 2
        else:
            by_hand += (window**2 * channels + 1) * features
            channels = features
        expected.append((name, (size, size, channels)))
    expected += [("fc6", (4096,)), ("fc7", (4096,)), ("output", (1000,))]
    by_hand += (7 * 7 * 512 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
    assert list(shapes.items()) == expected
    assert size_of(variables) == by_hand == COUNTS[config]


def test_the_names_count_the_layers():
    for name, config in VGG_NAMES.items():
        layers = 3 + sum(features is not None for *_, features in rows(config))
        assert name.removesuffix("_c") == f"vgg{layers}"


def test_batch_normalisation_adds_two_parameters_per_filter():
    filters = 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512
    variables, shapes = trace(VGG(1000, batch_norm=True), 224)
    assert size_of(variables["params"]) == COUNTS["D"] + 2 * filters == 138_365_992
    assert list(shapes) == [name for name, *_ in rows("D")] + ["fc6", "fc7", "output"]


def test_small_variants():
    _, shapes = trace(VGG(4, "A", width=1 / 100, hidden=8), 32, channels=1)
    features = [shapes[f"conv{stage}_1"][-1] for stage in range(1, 6)]
    assert features == [1, 1, 3, 5, 5] and shapes["fc6"] == shapes["fc7"] == (8,)


@pytest.mark.parametrize("name, config", VGG_NAMES.items())
def test_smallest_image(name, config):
    assert trace(VGG(10, config), 32)[1]["pool5"][:2] == (1, 1)
    with pytest.raises(InputError, match=f"too small for {name}; the smallest size is 32x32"):
        trace(VGG(10, config), 31)


def test_unknown_configuration():
    with pytest.raises(InputError, match="unknown VGG configuration 'F'; choose one of: A, B, C"):
        trace(VGG(10, "F"), 32)


@pytest.mark.slow
def test_how_it_starts():
    """He's variance, 2 / fan in, before each rectifier; a first loss of log K."""
    model = VGG(10, "A", width=1 / 4, hidden=512)
    images = jax.random.normal(jax.random.key(0), (16, 32, 32, 3))
    logits, variables = jax.jit(lambda: model.init_with_output(jax.random.key(0), images))()
    for name, layer in variables["params"].items():
        kernel = np.asarray(layer["kernel"])
        fan_in = kernel.size / kernel.shape[-1]
        expected = 0.01 if name == "output" else np.sqrt(2 / fan_in)
        np.testing.assert_allclose(kernel.std(), expected, rtol=0.08)
        assert (layer["bias"] == 0).all()
    loss = -jax.nn.log_softmax(logits[0]).mean()
    np.testing.assert_allclose(loss, np.log(10), atol=0.2)


def test_where_dropout_is(monkeypatch):
    """On the outputs of fc6 and fc7, half of them."""
    seen = []
    stand_in = lambda rate: lambda x, train: seen.append((rate, x.shape)) or x  # noqa: E731
    monkeypatch.setattr(vgg, "Dropout", stand_in)
    trace(VGG(4, "A", hidden=8), 32)
    assert seen == [(0.5, (1, 8)), (0.5, (1, 8))]


@pytest.mark.parametrize("config, batch_norm", [("C", False), ("A", True)])
def test_logits_are_those_of_pytorch(config, batch_norm):
    nn = pytest.importorskip("torch").nn
    model = VGG(5, config, batch_norm, width=1 / 16, hidden=16)
    images = torch_twin.two_images(66, 32)
    variables = torch_twin.random_variables(model, images)
    layers, before = collections.OrderedDict(), 3
    for name, size, features in rows(config):
        if features is None:
            layers[name] = nn.MaxPool2d(2)
            continue
        layers[name] = nn.Conv2d(before, features // 16, size, padding=size // 2)
        before = features // 16
        part = name.removeprefix("conv")
        if batch_norm:
            layers[f"norm{part}"] = nn.BatchNorm2d(before)
        layers[f"relu{part}"] = nn.ReLU()
    layers["flatten"] = torch_twin.flatten()
    layers |= {"fc6": nn.Linear(2 * before, 16), "relu6": nn.ReLU()}
    layers |= {"fc7": nn.Linear(16, 16), "relu7": nn.ReLU(), "output": nn.Linear(16, 5)}
    expected = torch_twin.run(torch_twin.load(nn.Sequential(layers), variables), images)
    logits, _ = jax.jit(model.apply)(variables, images)
    torch_twin.assert_close(logits, expected)
