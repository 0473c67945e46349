"""The residual block in its two versions, and the small ResNets made of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.models.cnn.residual import ResidualBlock, Unit, basic, bottleneck
from dlcore.models.cnn.small_resnet import SmallResNet

X = jax.random.normal(jax.random.key(0), (2, 7, 8, 4))


def shaken(variables):
    """Variables with random scales, biases and statistics instead of ones and zeros."""
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    noise = [jax.random.uniform(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    new = [leaf + 0.3 * each for leaf, each in zip(leaves, noise, strict=True)]
    return jax.tree.unflatten(structure, new)


def shapes(model, size=32):
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init_with_output, jax.random.key(0), images)


def count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(model)[1]["params"]))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("features, stride", [(4, 1), (8, 2), (6, 1)])
def test_the_identity_shortcut_has_no_parameters(features, stride, version):
    """A block that starts at zero is the shortcut: every second pixel, zero channels."""
    block = ResidualBlock(basic(features, stride), version=version, zero_init=True)
    variables = jax.jit(block.init)(jax.random.key(0), X)
    expected = np.zeros((2, -(-7 // stride), -(-8 // stride), features), np.float32)
    expected[..., :4] = X[:, ::stride, ::stride]
    if version == 1:
        expected = np.maximum(expected, 0)
    np.testing.assert_array_equal(block.apply(variables, X), expected)
    convolutions = 9 * 4 * features + 9 * features * features
    norms = 4 * features if version == 1 else 2 * 4 + 2 * features
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == convolutions + norms


def plain_block(variables, x, units, version, shortcut, preactivation):
    """The block as the papers draw it, by JAX's own convolution."""
    params, stats = variables["params"], variables["batch_stats"]

    def norm(x, name):
        scale, bias, mean, var = (
            jnp.reshape(each, (1, 1, 1, -1))
            for each in (
                *map(params[name].get, ("scale", "bias")),
                stats[name]["mean"],
                stats[name]["var"],
            )
        )
        return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias

    def conv(x, name, unit):
        pad, numbers = unit.window // 2, ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x,
            params[name]["kernel"],
            (unit.stride,) * 2,
            ((pad, pad),) * 2,
            dimension_numbers=numbers,
        )

    y = x
    if version == 1:
        for i, unit in enumerate(units):
            y = norm(conv(y, f"conv_{i}", unit), f"norm_{i}")
            y = jax.nn.relu(y) if i < len(units) - 1 else y
    else:
        for i, unit in enumerate(units):
            if i or preactivation != "none":
                y = jax.nn.relu(norm(y, f"norm_{i}"))
            if i == 0 and preactivation == "both":
                x = y
            y = conv(y, f"conv_{i}", unit)
    stride = np.prod([unit.stride for unit in units])
    if shortcut == "projection":
        x = conv(x, "projection", Unit(units[-1].features, 1, int(stride)))
        x = norm(x, "projection_norm") if version == 1 else x
    elif shortcut == "identity":
        x = jnp.pad(x[:, ::stride, ::stride], [(0, 0)] * 3 + [(0, y.shape[-1] - x.shape[-1])])
    y = y if shortcut == "none" else y + x
    return jax.nn.relu(y) if version == 1 else y


BLOCKS = {
    "basic": basic(6, 2),
    "bottleneck": bottleneck(3, 2),
    "bottleneck of the paper": bottleneck(3, 2, stride_in="1x1"),
}
# All of these run quickly alone, but there are many: each choice occurs with some others.
QUICK = {
    ("basic", 1, "branch", "identity"),
    ("basic", 1, "branch", "projection"),
    ("basic", 2, "branch", "none"),
    ("basic", 2, "both", "projection"),
    ("basic", 2, "none", "identity"),
    ("bottleneck", 2, "branch", "projection"),
    ("bottleneck of the paper", 1, "branch", "projection"),
}


@pytest.mark.parametrize(
    ("units", "version", "preactivation", "shortcut"),
    [
        pytest.param(
            *(BLOCKS[units], version, preactivation, shortcut),
            marks=[pytest.mark.slow] * ((units, version, preactivation, shortcut) not in QUICK),
            id=f"{units}-{version}-{preactivation}-{shortcut}",
        )
        for units in BLOCKS
        for version, preactivation in [(1, "branch"), (2, "branch"), (2, "both"), (2, "none")]
        for shortcut in ("identity", "projection", "none")
    ],
)
def test_block_is_the_papers(units, version, preactivation, shortcut):
    block = ResidualBlock(units, version, shortcut, preactivation)
    variables = shaken(jax.jit(block.init)(jax.random.key(0), X))
    plain = functools.partial(
        plain_block, units=units, version=version, shortcut=shortcut, preactivation=preactivation
    )
    found, expected = (jax.jit(compute)(variables, X) for compute in (block.apply, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("version", [1, 2])
def test_zero_init_learns(version):
    """The zeros get a gradient: a scale of zero before a ReLU would not."""
    block = ResidualBlock(basic(4), version, zero_init=True)
    variables = jax.jit(block.init)(jax.random.key(0), X)

    def loss(params):
        y = block.apply({**variables, "params": params}, X, True, mutable=["batch_stats"])[0]
        return (y**3).sum()

    zero = ("norm_1", "scale") if version == 1 else ("conv_1", "kernel")
    assert not variables["params"][zero[0]][zero[1]].any()
    assert jax.jit(jax.grad(loss))(variables["params"])[zero[0]][zero[1]].all()


def test_dropped_branches_leave_the_shortcut():
    block = ResidualBlock(basic(4), version=2, survival=0.5)
    whole = ResidualBlock(basic(4), version=2)
    variables = jax.jit(block.init)(jax.random.key(0), X)
    branch = whole.apply(variables, X) - X
    np.testing.assert_allclose(block.apply(variables, X), X + branch / 2, rtol=1e-5, atol=1e-5)
    rngs = {"dropout": jax.random.key(0)}
    y, _ = block.clone(survival=0.0).apply(variables, X, True, rngs=rngs, mutable=["batch_stats"])
    np.testing.assert_array_equal(y, X)


def test_published_parameter_counts():
    """Table 6 of the paper: 19.4M with 1202 layers; the others in the common suite."""
    assert count(SmallResNet(10, depth=1202)) == 19_421_274
    # By hand: the stem, n blocks of each width less the narrower input, norms, the classifier.
    n = 3
    convolutions = 9 * (3 * 16 + 2 * n * (16**2 + 32**2 + 64**2) - 16 * 32 - 32 * 64)
    norms = 2 * (16 + 2 * n * (16 + 32 + 64))
    assert count(SmallResNet(10)) == convolutions + norms + 65 * 10 == 269_722
    # Version 2 trades the last norm of the last stage's blocks for one at the end.
    assert count(SmallResNet(10, version=2)) == 269_722
    projections = 16 * 32 + 32 * 64
    assert count(SmallResNet(10, shortcut="projection")) == 269_722 + projections + 2 * (32 + 64)
    assert count(SmallResNet(10, shortcut="projection", version=2)) == 269_722 + projections
    assert count(SmallResNet(10, plain=True)) == 269_722


def test_width():
    (_, a), _ = shapes(SmallResNet(10, width=0.2))
    assert [a[f"stage_{stage}_block_0"].shape[-1] for stage in range(3)] == [3, 6, 13]
    (_, a), _ = shapes(SmallResNet(10, width=0.01))
    assert [a[f"stage_{stage}_block_0"].shape[-1] for stage in range(3)] == [1, 1, 1]


def test_stages_of_resnet20():
    """Table of section 4.2: 32x32 with 16 channels, 16x16 with 32, 8x8 with 64."""
    (_, a), _ = shapes(SmallResNet(10))
    found = [a[f"stage_{stage}_block_{i}"].shape[1:] for stage in range(3) for i in range(3)]
    assert found == [(32, 32, 16)] * 3 + [(16, 16, 32)] * 3 + [(8, 8, 64)] * 3


@pytest.mark.parametrize("version", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_without_its_blocks_the_stem_comes_out(version):
    """Shortcuts reach from the stem to the end: with branches of zero only pooling is left."""
    model = SmallResNet(10, depth=8, version=version, width=0.25, zero_init=True)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    _, a = jax.jit(model.apply)(variables, images)
    last = a["final"] if version == 2 else a["stage_2_block_0"]
    expected = np.zeros_like(last)
    expected[..., :4] = np.asarray(a["stem"])[:, ::4, ::4]
    np.testing.assert_allclose(last, expected, rtol=1e-4)
    plain = SmallResNet(10, depth=8, version=version, width=0.25, plain=True)
    zeros = jax.tree.map(jnp.zeros_like, variables["params"] | {"stem": None})
    stem = {name: variables["params"][name] for name in ("stem", "stem_norm")}
    _, a = jax.jit(plain.apply)({**variables, "params": zeros | stem}, images)
    assert not a["pool"].any()


def test_stochastic_depth_decays_over_the_blocks():
    """The last block evaluates to half its branch; in training the seeds differ."""
    model = SmallResNet(10, depth=14, version=2, width=0.25, survival=0.5)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    _, a = jax.jit(model.apply)(variables, images)
    slice_of = {
        c: jax.tree.map(lambda leaf: leaf[0], variables[c]["stage_2"]["rest"]) for c in variables
    }
    x = a["stage_2_block_0"]
    branch = jax.jit(ResidualBlock(basic(16), version=2).apply)(slice_of, x) - x
    np.testing.assert_allclose(a["stage_2_block_1"], x + branch / 2, rtol=1e-4, atol=1e-5)

    @jax.jit
    def train(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, images, True, rngs=rngs, mutable=["batch_stats"])[0][0]

    assert (train(0) == train(0)).all() and (train(0) != train(1)).any()


@pytest.mark.parametrize("depth", [2, 18, 21])
def test_impossible_depth(depth):
    with pytest.raises(InputError, match=f"depth {depth} is not 6n \\+ 2"):
        shapes(SmallResNet(10, depth=depth))


def test_impossible_attributes():
    with pytest.raises(InputError, match="without its shortcuts a plain network"):
        shapes(SmallResNet(10, plain=True, survival=0.5))
    with pytest.raises(InputError, match="unknown shortcut 'b'; choose one of: identity, none, pr"):
        shapes(SmallResNet(10, shortcut="b"))
    with pytest.raises(InputError, match="unknown version '3'; choose one of: 1, 2"):
        shapes(SmallResNet(10, version=3))
    with pytest.raises(InputError, match="unknown stride_in '5x5'; choose one of: 1x1, 3x3"):
        bottleneck(4, 2, stride_in="5x5")


def test_smallest_image():
    shapes(SmallResNet(10), 8)
    with pytest.raises(InputError, match="too small for resnet20; the smallest size is 8x8"):
        shapes(SmallResNet(10), 7)
