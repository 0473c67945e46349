"""GoogLeNet and its parts against the paper, NumPy and PyTorch."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_twin
from traced import size_of, trace

from dlcore.errors import InputError
from dlcore.models.cnn import googlenet, inception
from dlcore.models.cnn.googlenet import GoogLeNet
from dlcore.models.cnn.inception import AuxiliaryHead, adaptive_average_pool, ceil_max_pool

# Table 1 of the paper: output size and depth; #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool
# proj.
TABLE = {
    "3a": (28, 256, 64, 96, 128, 16, 32, 32),
    "3b": (28, 480, 128, 128, 192, 32, 96, 64),
    "4a": (14, 512, 192, 96, 208, 16, 48, 64),
    "4b": (14, 512, 160, 112, 224, 24, 64, 64),
    "4c": (14, 512, 128, 128, 256, 24, 64, 64),
    "4d": (14, 528, 112, 144, 288, 32, 64, 64),
    "4e": (14, 832, 256, 160, 320, 32, 128, 128),
    "5a": (7, 832, 256, 160, 320, 32, 128, 128),
    "5b": (7, 1024, 384, 192, 384, 48, 128, 128),
}
BOTH = pytest.mark.parametrize("batch_norm", [False, True])


def test_the_paper_s_table():
    variables, shapes = trace(GoogLeNet(1000), 224, train=True)
    expected = {
        "conv1": (112, 112, 64),
        "pool1": (56, 56, 64),
        "norm1": (56, 56, 64),
        "conv2_reduce": (56, 56, 64),
        "conv2": (56, 56, 192),
        "norm2": (56, 56, 192),
        "pool2": (28, 28, 192),
    }
    for number, (size, depth, *_) in TABLE.items():
        expected[f"inception_{number}"] = (size, size, depth)
        after = {
            "3b": {"pool3": (14, 14, 480)},
            "4a": {"auxiliary_0": (1000,)},
            "4d": {"auxiliary_1": (1000,)},
            "4e": {"pool4": (7, 7, 832)},
        }
        expected |= after.get(number, {})
    expected |= {"pool5": (1024,), "output": (1000,)}
    assert list(shapes.items()) == list(expected.items())


@BOTH
def test_parameters_of_each_module(batch_norm):
    """By the table; torchvision's form has no biases, two parameters per filter and 3x3 for 5x5."""
    params = trace(GoogLeNet(1000, batch_norm=batch_norm), 224)[0]["params"]
    more, third = (2, 9) if batch_norm else (1, 25)
    counts = {
        "conv1": (49 * 3 + more) * 64,
        "conv2_reduce": (64 + more) * 64,
        "conv2": (9 * 64 + more) * 192,
    }
    channels = 192
    for number, (_, depth, one, reduce3, three, reduce5, five, project) in TABLE.items():
        counts[f"inception_{number}"] = (
            (channels + more) * (one + reduce3 + reduce5 + project)
            + (9 * reduce3 + more) * three
            + (third * reduce5 + more) * five
        )
        channels = depth
    counts["output"] = (1024 + 1) * 1000
    assert sum(counts.values()) == (6_624_904 if batch_norm else 6_998_552)
    for name, channels in (("auxiliary_0", 512), ("auxiliary_1", 528)):
        counts[name] = (channels + more) * 128 + (4 * 4 * 128 + 1) * 1024 + (1024 + 1) * 1000
    assert {name: size_of(layer) for name, layer in params.items()} == counts
    assert sum(counts.values()) == (13_004_888 if batch_norm else 13_378_280)
    without = trace(GoogLeNet(1000, auxiliary=False, batch_norm=batch_norm), 224)[0]["params"]
    assert {name: size_of(layer) for name, layer in without.items()} == {
        name: count for name, count in counts.items() if not name.startswith("auxiliary")
    }


@pytest.mark.parametrize("batch_norm", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_heads_are_there_in_training_only_but_their_parameters_always(batch_norm):
    model = GoogLeNet(7, batch_norm=batch_norm, width=1 / 16)
    evaluated, trained = (trace(model, 96, train=train) for train in (False, True))
    assert jax.tree.map(jnp.shape, evaluated[0]) == jax.tree.map(jnp.shape, trained[0])
    heads = {"auxiliary_0": (7,), "auxiliary_1": (7,)}
    assert {n: s for n, s in trained[1].items() if n not in evaluated[1]} == heads
    assert all(name in trained[1] for name in evaluated[1])


def test_each_head_stands_on_its_module(monkeypatch):
    """With heads that return their input."""
    monkeypatch.setattr(googlenet, "AuxiliaryHead", lambda *_, **__: lambda x, train: x)

    def initialise(images):
        rngs = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
        (_, a), _ = GoogLeNet(3, width=1 / 16).init_with_output(rngs, images, train=True)
        assert a["auxiliary_0"] is a["inception_4a"] and a["auxiliary_1"] is a["inception_4d"]

    jax.eval_shape(initialise, jnp.ones((1, 79, 79, 1)))


@pytest.mark.parametrize(
    "attributes, name, smallest, last",
    [
        ({}, "googlenet with auxiliary heads", 79, {"inception_4a": 5}),
        ({"auxiliary": False}, "googlenet", 31, {"pool3": 2, "pool4": 1}),
        ({"batch_norm": True}, "googlenet", 15, {"pool1": 4, "pool2": 2, "pool3": 1, "pool4": 1}),
    ],
)
def test_smallest_image(attributes, name, smallest, last):
    """`last` holds the heights of the maps that could not be smaller."""
    model = GoogLeNet(10, **attributes)
    shapes = trace(model, smallest)[1]
    assert {layer: shapes[layer][0] for layer in last} == last
    with pytest.raises(InputError, match=f"for {name}; the smallest size is {smallest}x{smallest}"):
        trace(model, smallest - 1)


@pytest.mark.parametrize("window, sizes", [(3, (8, 7)), (3, (2, 3)), (2, (7, 1)), (2, (6, 3))])
def test_ceil_max_pool(window, sizes):
    """NumPy: ceil((n - window) / 2) + 1 windows along n values, cut off where the values end."""
    x = np.random.default_rng(0).normal(size=(2, *sizes, 3)).astype(np.float32) - 5
    y = ceil_max_pool(jnp.asarray(x), window)
    assert y.shape[1:3] == tuple(int(np.ceil((n - window) / 2)) + 1 for n in sizes)
    for i, j in np.ndindex(y.shape[1:3]):
        values = x[:, 2 * i : 2 * i + window, 2 * j : 2 * j + window]
        np.testing.assert_array_equal(y[:, i, j], values.max((1, 2)))


@pytest.mark.parametrize("sizes", [(14, 4), (9, 5), (3, 1)])
def test_adaptive_average_pool(sizes):
    x = np.random.default_rng(0).normal(size=(2, *sizes, 3)).astype(np.float32)
    y = adaptive_average_pool(jnp.asarray(x), 4)
    assert y.shape == (2, 4, 4, 3)
    for i, j in np.ndindex(4, 4):
        rows, columns = (
            slice(int(np.floor(k * n / 4)), int(np.ceil((k + 1) * n / 4)))
            for k, n in zip((i, j), sizes, strict=True)
        )
        np.testing.assert_allclose(y[:, i, j], x[:, rows, columns].mean((1, 2)), 1e-5, 1e-6)


def unit(before, features, size, batch_norm, stride=1):
    nn = pytest.importorskip("torch").nn
    conv = nn.Conv2d(before, features, size, stride, size // 2, bias=not batch_norm)
    layers = collections.OrderedDict(conv=conv)
    if batch_norm:
        layers["norm"] = nn.BatchNorm2d(features, eps=1e-3)
    return nn.Sequential(layers | {"relu": nn.ReLU()})


def module(before, filters, batch_norm):
    nn = pytest.importorskip("torch").nn
    torch = pytest.importorskip("torch")
    one, reduce3, three, reduce5, five, project = filters

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1x1 = unit(before, one, 1, batch_norm)
            self.reduce3x3 = unit(before, reduce3, 1, batch_norm)
            self.conv3x3 = unit(reduce3, three, 3, batch_norm)
            self.reduce5x5 = unit(before, reduce5, 1, batch_norm)
            self.conv5x5 = unit(reduce5, five, 3 if batch_norm else 5, batch_norm)
            self.pool = nn.MaxPool2d(3, 1, 1, ceil_mode=True)
            self.project = unit(before, project, 1, batch_norm)

        def forward(self, x):
            three = self.conv3x3(self.reduce3x3(x))
            five = self.conv5x5(self.reduce5x5(x))
            return torch.cat([self.conv1x1(x), three, five, self.project(self.pool(x))], 1)

    return Module()


def twin(scaled, num_classes, batch_norm):
    """The network without heads in PyTorch, `scaled` being the rule for its numbers of filters."""
    nn = pytest.importorskip("torch").nn
    layers = collections.OrderedDict(conv1=unit(3, scaled(64), 7, batch_norm, stride=2))
    layers["pool1"] = nn.MaxPool2d(3, 2, ceil_mode=True)
    if not batch_norm:
        layers["norm1"] = nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)
    layers["conv2_reduce"] = unit(scaled(64), scaled(64), 1, batch_norm)
    layers["conv2"] = unit(scaled(64), scaled(192), 3, batch_norm)
    if not batch_norm:
        layers["norm2"] = nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)
    layers["pool2"] = nn.MaxPool2d(3, 2, ceil_mode=True)
    before = scaled(192)
    for number, (_, _, *filters) in TABLE.items():
        filters = [scaled(features) for features in filters]
        layers[f"inception_{number}"] = module(before, filters, batch_norm)
        before = filters[0] + filters[2] + filters[4] + filters[5]
        if number == "3b":
            layers["pool3"] = nn.MaxPool2d(3, 2, ceil_mode=True)
        if number == "4e":
            layers["pool4"] = nn.MaxPool2d(2 if batch_norm else 3, 2, ceil_mode=True)
    layers |= {"pool5": nn.AdaptiveAvgPool2d(1), "flatten": torch_twin.flatten()}
    return nn.Sequential(layers | {"output": nn.Linear(before, num_classes)})


@BOTH
def test_logits_are_those_of_pytorch(batch_norm):
    model = GoogLeNet(5, auxiliary=False, batch_norm=batch_norm, width=1 / 16)
    images = torch_twin.two_images(100, 75)
    variables = torch_twin.random_variables(model, images)
    net = twin(lambda features: max(1, round(features / 16)), 5, batch_norm)
    expected = torch_twin.run(torch_twin.load(net, variables), images)
    logits, _ = jax.jit(model.apply)(variables, images)
    torch_twin.assert_close(logits, expected)


@BOTH
def test_a_head_is_that_of_pytorch(batch_norm):
    nn = pytest.importorskip("torch").nn
    model = AuxiliaryHead(5, features=4, hidden=8, batch_norm=batch_norm)
    maps = torch_twin.two_images(14, 11)
    variables = torch_twin.random_variables(model, maps)
    pool = nn.AdaptiveAvgPool2d(4) if batch_norm else nn.AvgPool2d(5, 3)
    layers = collections.OrderedDict(pool=pool, conv=unit(3, 4, 1, batch_norm))
    layers["flatten"] = torch_twin.flatten()
    layers["hidden"] = nn.Linear((16 if batch_norm else 12) * 4, 8)
    layers |= {"relu": nn.ReLU(), "output": nn.Linear(8, 5)}
    expected = torch_twin.run(torch_twin.load(nn.Sequential(layers), variables), maps)
    torch_twin.assert_close(jax.jit(model.apply)(variables, maps), expected)


def test_where_dropout_is(monkeypatch):
    """0.7 on the dense layer of each head, 0.4 on the features of the output."""
    seen = []

    def dropout(rate):
        return lambda x, train: seen.append((rate, x.shape, train)) or x

    for file in (googlenet, inception):
        monkeypatch.setattr(file, "Dropout", dropout)
    trace(GoogLeNet(10), 224, train=True)
    assert seen == [(0.7, (1, 1024), True), (0.7, (1, 1024), True), (0.4, (1, 1024), True)]
