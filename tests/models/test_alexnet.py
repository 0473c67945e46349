"""AlexNet, with two groups and with one tower, against its papers and PyTorch."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_twin
from traced import size_of, trace

from dlcore.errors import InputError
from dlcore.models.cnn import alexnet
from dlcore.models.cnn.alexnet import AlexNet, AlexNetOneTower


@pytest.mark.parametrize("size", [224, 227])
def test_the_paper_s_layers(size):
    """Figure 2 and section 3.5: each filter of conv2, conv4 and conv5 sees one half."""
    variables, shapes = trace(AlexNet(1000), size)
    assert {name: size_of(layer) for name, layer in variables["params"].items()} == {
        "conv1": (11 * 11 * 3 + 1) * 96,
        "conv2": (5 * 5 * 48 + 1) * 256,
        "conv3": (3 * 3 * 256 + 1) * 384,
        "conv4": (3 * 3 * 192 + 1) * 384,
        "conv5": (3 * 3 * 192 + 1) * 256,
        "fc6": (6 * 6 * 256 + 1) * 4096,
        "fc7": (4096 + 1) * 4096,
        "output": (4096 + 1) * 1000,
    }
    assert size_of(variables) == 60_965_224
    assert list(shapes.items()) == [
        ("conv1", (55, 55, 96)),
        ("norm1", (55, 55, 96)),
        ("pool1", (27, 27, 96)),
        ("conv2", (27, 27, 256)),
        ("norm2", (27, 27, 256)),
        ("pool2", (13, 13, 256)),
        ("conv3", (13, 13, 384)),
        ("conv4", (13, 13, 384)),
        ("conv5", (13, 13, 256)),
        ("pool5", (6, 6, 256)),
        ("fc6", (4096,)),
        ("fc7", (4096,)),
        ("output", (1000,)),
    ]


def test_one_tower():
    variables, shapes = trace(AlexNetOneTower(1000), 224)
    assert size_of(variables) == 61_100_840
    assert list(shapes.items()) == [
        ("conv1", (55, 55, 64)),
        ("pool1", (27, 27, 64)),
        ("conv2", (27, 27, 192)),
        ("pool2", (13, 13, 192)),
        ("conv3", (13, 13, 384)),
        ("conv4", (13, 13, 256)),
        ("conv5", (13, 13, 256)),
        ("pool5", (6, 6, 256)),
        ("fc6", (4096,)),
        ("fc7", (4096,)),
        ("output", (1000,)),
    ]
    maps = {size: trace(AlexNetOneTower(10), size)[1]["pool5"][0] for size in (222, 223, 254, 255)}
    assert maps == {222: 5, 223: 6, 254: 6, 255: 7}


def test_small_variants_keep_the_groups():
    variables, shapes = trace(AlexNet(4, width=1 / 100, hidden=8), 64, channels=1)
    features = [shapes[f"conv{i}"][-1] for i in range(1, 6)]
    # Layers that are read in two groups need an even number of channels too.
    assert features == [2, 2, 4, 4, 2]
    assert size_of(variables["params"]["fc7"]) == 8 * 9
    assert trace(AlexNet(4, width=1 / 32), 64)[1]["conv1"][-1] % 2 == 0
    assert trace(AlexNetOneTower(4, width=1e-3), 64)[1]["conv2"][-1] == 1


@pytest.mark.slow
def test_how_it_starts():
    """Section 5: weights N(0, 0.01); biases 1 in conv2, conv4, conv5, fc6 and fc7, else 0."""
    model = AlexNet(10, width=1 / 4, hidden=256)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    ones = {name for name, layer in params.items() if (layer["bias"] == 1).all()}
    zeros = {name for name, layer in params.items() if (layer["bias"] == 0).all()}
    assert ones == {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert zeros == {"conv1", "conv3", "output"}
    for layer in params.values():
        np.testing.assert_allclose(np.std(layer["kernel"]), 0.01, rtol=0.06)


@pytest.mark.parametrize("model, inputs", [(AlexNet, [8, 8]), (AlexNetOneTower, [256, 8])])
def test_where_dropout_is(model, inputs, monkeypatch):
    """On the outputs of fc6 and fc7 in the paper, on their inputs in the form with one tower."""
    seen = []
    stand_in = lambda rate: lambda x, train: seen.append((rate, x.shape)) or x  # noqa: E731
    monkeypatch.setattr(alexnet, "Dropout", stand_in)
    trace(model(4, hidden=8), 64)
    assert seen == [(0.5, (1, features)) for features in inputs]


@pytest.mark.parametrize(
    "model, name, smallest",
    [(AlexNet, "alexnet", 64), (AlexNetOneTower, "alexnet_one_tower", 63)],
)
def test_smallest_image(model, name, smallest):
    assert trace(model(10), smallest)[1]["pool5"][:2] == (1, 1)
    with pytest.raises(InputError, match=f"for {name}; the smallest size is {smallest}x{smallest}"):
        trace(model(10), smallest - 1)


def twin(channels, groups, padding, norm, flat, hidden, num_classes):
    """The network in PyTorch, without dropout."""
    nn = pytest.importorskip("torch").nn
    sizes = (11, 5, 3, 3, 3)
    layers = collections.OrderedDict(pad=nn.ZeroPad2d((padding[0], padding[1]) * 2))
    before = 3
    for i, (features, size, g) in enumerate(zip(channels, sizes, groups, strict=True), start=1):
        step = dict(stride=4) if i == 1 else dict(padding=size // 2)
        layers[f"conv{i}"] = nn.Conv2d(before, features, size, groups=g, **step)
        layers[f"relu{i}"] = nn.ReLU()
        if i < 3 and norm:
            layers[f"norm{i}"] = nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)
        if i in (1, 2, 5):
            layers[f"pool{i}"] = nn.MaxPool2d(3, 2)
        before = features
    layers["flatten"] = torch_twin.flatten()
    layers |= {"fc6": nn.Linear(flat * before, hidden), "relu6": nn.ReLU()}
    layers |= {"fc7": nn.Linear(hidden, hidden), "relu7": nn.ReLU()}
    layers["output"] = nn.Linear(hidden, num_classes)
    return nn.Sequential(layers)


@pytest.mark.parametrize("name", ["groups", "one tower"])
def test_logits_are_those_of_pytorch(name):
    if name == "groups":
        model = AlexNet(5, width=1 / 16, hidden=16, initialiser="he_normal")
        arguments = ((6, 16, 24, 24, 16), (1, 2, 1, 2, 2), (1, 2), True)
    else:
        model = AlexNetOneTower(5, width=1 / 16, hidden=16)
        arguments = ((4, 12, 24, 16, 16), (1, 1, 1, 1, 1), (2, 2), False)
    # Of large pixels, so that the response normalisation divides by more than its constant.
    images = torch_twin.two_images(100, 131)
    variables = torch_twin.random_variables(model, images)
    logits, a = jax.jit(model.apply)(variables, images)
    module = twin(*arguments, np.prod(a["pool5"].shape[1:3]), 16, 5)
    expected = torch_twin.run(torch_twin.load(module, variables), images)
    torch_twin.assert_close(logits, expected)
