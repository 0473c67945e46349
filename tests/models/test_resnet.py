"""The ResNets for ImageNet: their arithmetic, their receptive fields, and PyTorch's results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.models.cnn.resnet import STAGES, ResNet

COUNTS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}


def shapes(model, size=224):
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init_with_output, jax.random.key(0), images)


def count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(model)[1]["params"]))


def by_hand(depth, version):
    """Parameters from the layers one by one."""
    total = 49 * 3 * 64 + 2 * 64
    channels = 64
    for stage, blocks in enumerate(STAGES[depth]):
        f = 64 * 2**stage
        out = f if depth < 50 else 4 * f
        for block in range(blocks):
            if depth < 50:
                convolutions, inside = 9 * channels * f + 9 * f * f, [f]
            else:
                convolutions, inside = channels * f + 9 * f * f + f * out, [f, f]
            # The norm of the first convolution's input in version 2, of the last's output in 1.
            before = [] if stage == block == 0 else [channels]
            norms = [*inside, out] if version == 1 else [*before, *inside]
            if channels != out:
                convolutions += channels * out
                norms += [out] if version == 1 else []
            total += convolutions + 2 * sum(norms)
            channels = out
    return total + (2 * channels if version == 2 else 0) + (channels + 1) * 1000


def random_variables(model, images):
    """Kernels so small that the signal neither dies nor grows; scales and variances about 1."""
    random = np.random.default_rng(1)
    draw = {
        "kernel": lambda shape: random.normal(size=shape) / np.sqrt(np.prod(shape[-4:-1])),
        "scale": lambda shape: random.uniform(0.5, 1, shape),
        "bias": lambda shape: random.normal(size=shape),
        "mean": lambda shape: random.normal(size=shape),
        "var": lambda shape: random.uniform(1, 2, shape),
    }
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: draw[path[-1].key](leaf.shape).astype(np.float32),
        jax.eval_shape(model.init, jax.random.key(0), images),
    )


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "depth",
    [pytest.param(depth, marks=[pytest.mark.slow] * (depth > 50)) for depth in STAGES],
)
def test_parameter_counts(depth, version):
    expected = by_hand(depth, version)
    assert version == 2 or expected == COUNTS[depth]
    assert count(ResNet(1000, depth=depth, version=version)) == expected


@pytest.mark.parametrize(
    ("depth", "last", "version"),
    [
        (34, 512, 1),
        pytest.param(34, 512, 2, marks=pytest.mark.slow),
        pytest.param(50, 2048, 1, marks=pytest.mark.slow),
        (50, 2048, 2),
    ],
)
def test_shapes_of_table_1(depth, last, version):
    (logits, a), _ = shapes(ResNet(1000, depth=depth, version=version))
    assert a["stem"].shape == (1, 112, 112, 64) and a["stem_pool"].shape == (1, 56, 56, 64)
    for stage, (size, blocks) in enumerate(zip((56, 28, 14, 7), STAGES[depth], strict=True)):
        for block in range(blocks):
            features = last // 2 ** (3 - stage)
            assert a[f"stage_{stage}_block_{block}"].shape == (1, size, size, features)
    assert a["pool"].shape == (1, last) and logits.shape == (1, 1000)
    assert ("final" in a) == (version == 2)


def norm_of(torch, params, stats):
    layer = torch.nn.BatchNorm2d(len(params["scale"]))
    values = {
        "weight": params["scale"],
        "bias": params["bias"],
        "running_mean": stats["mean"],
        "running_var": stats["var"],
    }
    layer.load_state_dict(
        {name: torch.tensor(np.array(each)) for name, each in values.items()}, strict=False
    )
    return layer


def conv_of(torch, params, stride):
    kernel = torch.tensor(np.array(params["kernel"]).transpose(3, 2, 0, 1))
    k, c, window, _ = kernel.shape
    layer = torch.nn.Conv2d(c, k, window, stride, window // 2, bias=False)
    layer.weight.data = kernel
    return layer


def torch_net(torch, depth, params, stats):
    """Torchvision's architecture, of our weights."""

    class Block(torch.nn.Module):
        def __init__(self, params, stats, stride):
            super().__init__()
            layers = []
            strided = 0 if depth < 50 else 1
            for i in range(2 if depth < 50 else 3):
                conv = conv_of(torch, params[f"conv_{i}"], stride if i == strided else 1)
                layers += [conv, norm_of(torch, params[f"norm_{i}"], stats[f"norm_{i}"])]
                layers += [torch.nn.ReLU()]
            self.branch = torch.nn.Sequential(*layers[:-1])
            self.shortcut = torch.nn.Identity()
            if "projection" in params:
                norm = norm_of(torch, params["projection_norm"], stats["projection_norm"])
                self.shortcut = torch.nn.Sequential(
                    conv_of(torch, params["projection"], stride), norm
                )

        def forward(self, x):
            return torch.relu(self.branch(x) + self.shortcut(x))

    layers = [
        conv_of(torch, params["stem"], 2),
        norm_of(torch, params["stem_norm"], stats["stem_norm"]),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(3, 2, 1),
    ]
    for stage, blocks in enumerate(STAGES[depth]):
        name = f"stage_{stage}"
        stride = 2 if stage else 1
        layers.append(Block(params[name]["first"], stats[name]["first"], stride))
        for i in range(blocks - 1):
            one = [
                jax.tree.map(lambda leaf, i=i: leaf[i], tree[name]["rest"])
                for tree in (params, stats)
            ]
            layers.append(Block(*one, 1))
    head = torch.nn.Linear(*params["output"]["kernel"].shape)
    head.weight.data = torch.tensor(np.array(params["output"]["kernel"]).T)
    head.bias.data = torch.tensor(np.array(params["output"]["bias"]))
    layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head]
    return torch.nn.Sequential(*layers).eval()


@pytest.mark.parametrize("depth", [18, 50])
def test_equals_pytorch(depth):
    torch = pytest.importorskip("torch")
    model = ResNet(5, depth=depth, width=1 / 16)
    images = np.random.default_rng(0).normal(size=(2, 37, 45, 3)).astype(np.float32)
    variables = random_variables(model, images)
    logits, _ = jax.jit(model.apply)(variables, images)
    net = torch_net(torch, depth, variables["params"], variables["batch_stats"])
    with torch.no_grad():
        expected = net(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_unknown_depth():
    with pytest.raises(InputError, match="unknown depth '20'; choose one of: 101, 152, 18, 34, 50"):
        shapes(ResNet(10, depth=20))


def test_smallest_image():
    shapes(ResNet(10, depth=18), 8)
    with pytest.raises(InputError, match="too small for resnet18; the smallest size is 8x8"):
        shapes(ResNet(10, depth=18), 7)
