"""Maxout networks against the paper and its authors' configurations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.models.cnn.maxout import MaxoutCNN, MaxoutMLP


def maxout(x, params, pieces):
    """(B, C) to (B, K): the largest of each unit's affine functions."""
    total = x @ params["affine"]["kernel"] + params["affine"]["bias"]
    return np.stack([total[:, i : i + pieces].max(1) for i in range(0, total.shape[1], pieces)], 1)


def correlate(x, kernel):
    """A convolution that keeps the size: of an even padding's zeros one more at the end."""
    size = kernel.shape[0]
    start, end = (size - 1) // 2, size // 2
    padded = np.pad(x, ((0, 0), (start, end), (start, end), (0, 0)))
    y = np.empty((*x.shape[:3], kernel.shape[-1]), np.float32)
    for i, j in np.ndindex(x.shape[1:3]):
        y[:, i, j] = np.einsum("bhwc,hwck->bk", padded[:, i : i + size, j : j + size], kernel)
    return y


def pool(x, window):
    """The max of every second window of the image, its outside left out."""

    def windows(size):
        # What the padding must add so that every second position has a window, less of it before.
        start = max(0, 2 * -(-size // 2) - 2 + window - size) // 2
        return [slice(max(0, i - start), i - start + window) for i in range(0, size, 2)]

    rows, columns = map(windows, x.shape[1:3])
    return np.stack([np.stack([x[:, r, c].max((1, 2)) for c in columns], 1) for r in rows], 1)


def with_biases(variables):
    """All biases random: at initialisation they are zero, which would hide a missing one."""
    rng = np.random.default_rng(0)

    def change(path, leaf):
        return rng.normal(size=leaf.shape).astype("f4") if path[-1].key == "bias" else leaf

    return jax.tree_util.tree_map_with_path(change, variables)


def test_mlp():
    x = np.array(jax.random.normal(jax.random.key(1), (3, 2, 4, 1)))
    model = MaxoutMLP(4, features=3, pieces=2)
    variables = with_biases(model.init(jax.random.key(0), x))
    params = jax.tree.map(np.asarray, variables["params"])
    logits, a = model.apply(variables, x)
    hidden = maxout(x.reshape(3, 8), params["maxout_0"], 2)
    np.testing.assert_allclose(a["maxout_0"], hidden, rtol=1e-5, atol=1e-6)
    hidden = maxout(hidden, params["maxout_1"], 2)
    expected = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_cnn():
    x = np.array(jax.random.normal(jax.random.key(1), (2, 16, 14, 2)))
    model = MaxoutCNN(4, width=0.02)
    variables = with_biases(jax.jit(model.init)(jax.random.key(0), x))
    params = jax.tree.map(np.asarray, variables["params"])
    logits, a = jax.jit(model.apply)(variables, x)
    y = x
    for name, window in (("conv_0", 4), ("conv_1", 4), ("conv_2", 2)):
        affine = params[name]["affine"]
        y = correlate(y, affine["kernel"]) + affine["bias"]
        y = y.reshape(*y.shape[:3], -1, 2).max(-1)
        np.testing.assert_allclose(a[name], y, rtol=1e-3, atol=1e-4)
        y = pool(y, window)
    hidden = maxout(y.reshape(2, -1), params["dense"], 5)
    expected = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def shapes_and_count(model, *shape):
    (_, a), variables = jax.eval_shape(
        model.init_with_output, jax.random.key(0), jnp.ones((1, *shape))
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return {name: value.shape[1:] for name, value in a.items()}, count


def test_parameters_of_the_mlp():
    """784 inputs, two layers of 240 units with 5 pieces, 10 classes."""
    _, count = shapes_and_count(MaxoutMLP(10), 28, 28, 1)
    assert count == (784 + 1) * 1200 + (240 + 1) * 1200 + (240 + 1) * 10


def test_parameters_and_maps_of_the_cnn():
    shapes, count = shapes_and_count(MaxoutCNN(10), 32, 32, 3)
    assert count == (
        (64 * 3 + 1) * 192
        + (64 * 96 + 1) * 384
        + (25 * 192 + 1) * 384
        + (4 * 4 * 192 + 1) * 2500
        + (500 + 1) * 10
    )
    assert shapes == {
        "conv_0": (32, 32, 96),
        "pool_0": (16, 16, 96),
        "conv_1": (16, 16, 192),
        "pool_1": (8, 8, 192),
        "conv_2": (8, 8, 192),
        "pool_2": (4, 4, 192),
        "dense": (500,),
        "output": (10,),
    }


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.2, 0.0), (0.0, 0.5)])
def test_both_kinds_of_dropout(rates):
    x = jnp.ones((2, 8, 8, 1))
    model = MaxoutMLP(4, features=8, input_dropout=rates[0], dropout=rates[1])
    variables = jax.jit(model.init)(jax.random.key(0), x)
    run = lambda seed: model.apply(variables, x, train=True, rngs={"dropout": jax.random.key(seed)})  # noqa: E731
    assert (run(0)[0] != run(1)[0]).any() == (sum(rates) > 0)
    # The input's dropout shows in the first layer, the other one only after it.
    assert (run(0)[1]["maxout_0"] != run(1)[1]["maxout_0"]).any() == (rates[0] > 0)


def test_smallest_image():
    shapes_and_count(MaxoutCNN(10), 8, 8, 1)
    with pytest.raises(InputError, match="8x7 pixels are too small for maxout_cnn"):
        MaxoutCNN(10).init(jax.random.key(0), jnp.ones((1, 8, 7, 1)))
