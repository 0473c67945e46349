"""DenseNets: the bookkeeping of their maps, the published counts, and PyTorch's results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.models.cnn.densenet import BLOCKS, DenseNet, DenseTrunk, SmallDenseNet

BC = {"bottleneck": True, "compression": 0.5}
TINY = SmallDenseNet(5, depth=16, growth=3, **BC)
COUNTS = [
    # Table 2 of the paper: 1.0M, 7.0M, 27.2M; with bottlenecks 0.8M, 15.3M, 25.6M.
    (SmallDenseNet(10), 32, 1_019_722),
    (SmallDenseNet(10, 100, 12), 32, 6_979_642),
    (SmallDenseNet(10, 100, 24), 32, 27_249_082),
    (SmallDenseNet(10, 100, 12, **BC), 32, 769_162),
    (SmallDenseNet(10, 250, 24, **BC), 32, 15_324_406),
    (SmallDenseNet(10, 190, 40, **BC), 32, 25_624_430),
    (DenseNet(1000, 121), 224, 7_978_856),
    (DenseNet(1000, 169), 224, 14_149_480),
    (DenseNet(1000, 201), 224, 20_013_928),
    (DenseNet(1000, 264), 224, 33_337_704),
]


def shapes(model, size=32):
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init_with_output, jax.random.key(0), images)


def by_hand(layers, first, window, growth, classes, *, bottleneck, compression, stem_norm):
    """Parameters, adding up maps layer by layer."""
    total, maps = window**2 * 3 * first + 2 * first * stem_norm, first
    for block, count in enumerate(layers):
        if block:
            kept = int(maps * compression)
            total, maps = total + 2 * maps + maps * kept, kept
        for _ in range(count):
            if bottleneck:
                total += 2 * maps + maps * 4 * growth + 2 * 4 * growth + 9 * 4 * growth * growth
            else:
                total += 2 * maps + 9 * maps * growth
            maps += growth
    return total + 2 * maps + (maps + 1) * classes


@pytest.mark.parametrize("model, size, expected", COUNTS)
def test_parameter_counts_by_hand(model, size, expected):
    """The common suite counts those of the networks that can be chosen by name."""
    options = {"bottleneck": model.bottleneck, "compression": model.compression}
    if isinstance(model, DenseNet):
        layers, first = BLOCKS[model.depth], 2 * model.growth
        counted = by_hand(layers, first, 7, model.growth, 1000, stem_norm=True, **options)
    else:
        layers = ((model.depth - 4) // (6 if model.bottleneck else 3),) * 3
        first = 2 * model.growth if model.bottleneck else 16
        counted = by_hand(layers, first, 3, model.growth, 10, stem_norm=False, **options)
    assert counted == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "model, size, expected",
    [COUNTS[2], *(pytest.param(*each, marks=pytest.mark.slow) for each in COUNTS[4:6])],
)
def test_parameter_counts_of_the_others(model, size, expected):
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


@pytest.mark.slow
def test_maps_of_densenet121():
    """Table 1: sizes and maps after each block and transition; k maps from each layer."""
    (logits, a), _ = shapes(DenseNet(1000), 224)
    found = {name: a[name].shape[1:] for name in a if "layer" not in name}
    assert found == {
        "stem": (112, 112, 64),
        "stem_pool": (56, 56, 64),
        "block_0": (56, 56, 256),
        "transition_0": (28, 28, 128),
        "block_1": (28, 28, 512),
        "transition_1": (14, 14, 256),
        "block_2": (14, 14, 1024),
        "transition_2": (7, 7, 512),
        "block_3": (7, 7, 1024),
        "final": (7, 7, 1024),
        "pool": (1024,),
        "output": (1000,),
    }
    assert all(a[name].shape[-1] == 32 for name in a if "layer" in name)
    assert sum("layer" in name for name in a) == 6 + 12 + 24 + 16
    assert 2 * sum("layer" in name for name in a) + 3 + 2 == 121


@pytest.fixture(scope="module")
def tiny():
    """Random variables of the tiny DenseNet-BC and images, of a size that does not halve evenly."""
    images = np.random.default_rng(0).normal(size=(2, 10, 11, 3)).astype(np.float32)
    random = np.random.default_rng(1)
    scale = {
        "kernel": lambda s: random.normal(size=s) / np.sqrt(np.prod(s[:-1])),
        "scale": lambda s: random.uniform(0.5, 1, s),
        "mean": lambda s: random.normal(size=s),
        "bias": lambda s: random.normal(size=s),
        "var": lambda s: random.uniform(1, 2, s),
    }
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: scale[path[-1].key](leaf.shape).astype(np.float32),
        jax.eval_shape(TINY.init, jax.random.key(0), images),
    )
    return variables, images


def test_a_block_holds_its_input_and_all_its_layers(tiny):
    """In this order; so the last layer reaches the first one without anything between."""
    _, a = jax.jit(TINY.apply)(*tiny)
    for block, start in enumerate(("stem", "transition_0", "transition_1")):
        parts = [a[start], *(a[f"block_{block}_layer_{i}"] for i in range(2))]
        np.testing.assert_array_equal(a[f"block_{block}"], np.concatenate(parts, -1))


def test_equals_pytorch(tiny):
    torch = pytest.importorskip("torch")
    variables, images = tiny
    params, stats = variables["params"], variables["batch_stats"]

    def bn_relu_conv(norm, conv, path=lambda tree: tree):
        own, own_stats = path(params), path(stats)
        layer = torch.nn.BatchNorm2d(len(own[norm]["scale"]))
        for name, value in (
            ("weight", own[norm]["scale"]),
            ("bias", own[norm]["bias"]),
            ("running_mean", own_stats[norm]["mean"]),
            ("running_var", own_stats[norm]["var"]),
        ):
            getattr(layer, name).data = torch.tensor(value)
        if conv is None:
            return torch.nn.Sequential(layer, torch.nn.ReLU())
        return torch.nn.Sequential(layer, torch.nn.ReLU(), convolution(own[conv]["kernel"]))

    def convolution(kernel):
        layer = torch.nn.Conv2d(
            *kernel.shape[2:], len(kernel), padding=len(kernel) // 2, bias=False
        )
        layer.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1))
        return layer

    class Layer(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            units = [bn_relu_conv(f"norm_{i}", f"conv_{i}", lambda t: t[name]) for i in range(2)]
            self.new = torch.nn.Sequential(*units)

        def forward(self, x):
            return torch.cat([x, self.new(x)], 1)

    layers = [convolution(params["stem"]["kernel"])]
    for block in range(3):
        if block:
            name = f"transition_{block - 1}"
            layers += [bn_relu_conv("norm", "conv", lambda tree, name=name: tree[name])]
            layers += [torch.nn.AvgPool2d(2)]
        layers += [Layer(f"block_{block}_layer_{i}") for i in range(2)]
    head = torch.nn.Linear(*params["output"]["kernel"].shape)
    head.weight.data = torch.tensor(params["output"]["kernel"].T)
    head.bias.data = torch.tensor(params["output"]["bias"])
    layers += [bn_relu_conv("final_norm", None), torch.nn.AdaptiveAvgPool2d(1)]
    net = torch.nn.Sequential(*layers, torch.nn.Flatten(), head).eval()
    with torch.no_grad():
        expected = net(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    assert np.abs(expected).max() > 0.1
    logits, _ = jax.jit(TINY.apply)(variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_remat_is_plain(tiny):
    """With dropout: both draw the same masks. Equal to 2e-4 of the largest."""
    _, images = tiny

    def gradient(remat):
        net = DenseTrunk(5, (2,), growth=3, dropout=0.2, remat=remat, **BC)
        own = jax.jit(net.init)(jax.random.key(0), images)

        def loss(p, stats):
            (logits, _), new = net.apply(
                {"params": p, "batch_stats": stats},
                images,
                True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )
            return (logits**2).sum(), new

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(own["params"], own["batch_stats"])

    def compare(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-4 * max(np.abs(b).max(), 1e-3))

    jax.tree.map(compare, gradient("full"), gradient("none"))


@pytest.mark.slow
def test_dropout_is_noise_in_training_alone(tiny):
    variables, images = tiny
    net = TINY.clone(dropout=0.2)
    np.testing.assert_array_equal(
        jax.jit(net.apply)(variables, images)[0], jax.jit(TINY.apply)(variables, images)[0]
    )

    @jax.jit
    def train(key):
        return net.apply(variables, images, True, rngs={"dropout": key}, mutable=["batch_stats"])[0]

    first, second = (train(jax.random.key(seed))[1] for seed in (0, 1))
    for name, value in first.items():
        assert (value != second[name]).any() == (name != "stem"), name
    # A fifth of the new maps is zero: 2 images of 10x11 with 3 maps each, to 4 sigma.
    zeros = (first["block_0_layer_0"] == 0).mean()
    assert abs(zeros - 0.2) < 4 * np.sqrt(0.16 / 660)


@pytest.mark.parametrize(
    "options, wrong",
    [
        ({"depth": 41}, "depth 41 is not 3n"),
        ({"depth": 4}, "depth 4 is not 3n"),
        ({"depth": 43, "bottleneck": True}, "depth 43 is not 6n"),
        ({"compression": 0.0}, "compression 0.0"),
        ({"compression": 1.5}, "compression 1.5"),
    ],
)
def test_impossible_attributes(options, wrong):
    with pytest.raises(InputError, match=wrong):
        shapes(SmallDenseNet(10, **options))


def test_unknown_depth():
    with pytest.raises(InputError, match="unknown depth '40'; choose one of: 121, 169, 201, 264"):
        shapes(DenseNet(10, depth=40))


@pytest.mark.parametrize(
    "model, smallest", [(TINY, 4), (DenseNet(5, growth=2, layers=(1, 1, 1, 1)), 29)]
)
def test_smallest_image(model, smallest):
    """Below it a transition would have nothing to halve: the last map has one pixel."""
    (_, a), _ = shapes(model, smallest)
    assert a["final"].shape[1:3] == (1, 1)
    with pytest.raises(InputError, match=f"the smallest size is {smallest}x{smallest}"):
        shapes(model, smallest - 1)
