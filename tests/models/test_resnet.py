"""The residual block and the stages of the small ResNets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.models import SmallResNet
from dlcore.models.cnn.resnet import ResidualBlock

X = jax.random.normal(jax.random.key(0), (2, 7, 8, 4))


@pytest.mark.parametrize("features, stride", [(4, 1), (8, 2), (6, 1)])
def test_the_shortcut_has_no_parameters(features, stride):
    """With a branch of zeros the block is the shortcut: every second pixel, zero channels."""
    block = ResidualBlock(features, stride)
    variables = block.init(jax.random.key(0), X)
    variables["params"]["norm_1"]["scale"] = jnp.zeros(features)
    expected = np.zeros((2, -(-7 // stride), -(-8 // stride), features), np.float32)
    expected[..., :4] = np.maximum(X, 0)[:, ::stride, ::stride]
    np.testing.assert_array_equal(block.apply(variables, X), expected)
    convolutions = 9 * 4 * features + 9 * features * features
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == convolutions + 4 * features


def test_branch_and_shortcut_add_up():
    """By JAX's own convolution; at initialisation the normalisation only divides by sqrt(1 + e)."""
    block = ResidualBlock(4)
    variables = block.init(jax.random.key(0), X)

    def convolve(x, name):
        kernel = variables["params"][name]["kernel"]
        numbers = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        return y / np.sqrt(1 + 1e-5)

    expected = jax.nn.relu(X + convolve(jax.nn.relu(convolve(X, "conv_0")), "conv_1"))
    np.testing.assert_allclose(block.apply(variables, X), expected, rtol=1e-4, atol=1e-5)


def test_stages_of_resnet20():
    """Table of section 4.2: 32x32 with 16 channels, 16x16 with 32, 8x8 with 64."""
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    _, a = jax.eval_shape(SmallResNet(10).init_with_output, jax.random.key(0), images)[0]
    shapes = [a[f"stage_{stage}_block_{i}"].shape[1:] for stage in range(3) for i in range(3)]
    assert shapes == [(32, 32, 16)] * 3 + [(16, 16, 32)] * 3 + [(8, 8, 64)] * 3


@pytest.mark.parametrize("depth", [2, 18, 21])
def test_impossible_depth(depth):
    with pytest.raises(ValueError, match=f"depth {depth} is not 6n \\+ 2"):
        SmallResNet(10, depth=depth).init(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
