"""Weights for a PyTorch module whose layers carry the names of a Linen model's parameters."""

import functools
import operator

import jax
import numpy as np
import pytest


def random_variables(model, images):
    """Variables with random biases, scales and running statistics; the model is only traced.

    At initialisation the biases and the running means are zero, which would hide a missing one, and
    the output's weights may be so small that the logits hardly depend on the image.
    """
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            return rng.normal(scale=np.sqrt(2 / fan_in), size=leaf.shape).astype(np.float32)
        low, high = (-0.2, 0.2) if path[-1].key in ("bias", "mean") else (0.7, 1.4)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def two_images(height, width):
    """(2, height, width, 3): two of different contrast, so that the logits differ by far."""
    images = jax.random.normal(jax.random.key(0), (2, height, width, 3))
    return images * np.array([20, 100], np.float32).reshape(2, 1, 1, 1)


def load(module, variables):
    """Copies the weights into the PyTorch module, every one of both sides, and returns it."""
    torch = pytest.importorskip("torch")
    state = {}
    for name, layer in module.named_modules():
        if not hasattr(layer, "weight"):
            continue
        path = name.split(".")
        leaves = functools.reduce(operator.getitem, path, variables["params"])
        kernel = leaves.get("kernel", leaves.get("scale"))
        if kernel.ndim > 1:
            transposed = isinstance(layer, torch.nn.ConvTranspose2d)
            places = (1, 0) if transposed else (0, 1)
            kernel = np.moveaxis(np.asarray(kernel), (-1, -2), places)
        state[f"{name}.weight"] = kernel
        if "bias" in leaves:
            state[f"{name}.bias"] = leaves["bias"]
        if "scale" in leaves and "batch_stats" in variables:
            statistics = functools.reduce(operator.getitem, path, variables["batch_stats"])
            state[f"{name}.running_mean"] = statistics["mean"]
            state[f"{name}.running_var"] = statistics["var"]
            state[f"{name}.num_batches_tracked"] = 0
    here = sum(np.size(leaf) for name, leaf in state.items() if not name.endswith("tracked"))
    assert here == sum(leaf.size for leaf in jax.tree.leaves(variables))
    module.load_state_dict({name: torch.tensor(np.array(leaf)) for name, leaf in state.items()})
    return module.eval()


def flatten():
    """A PyTorch module that flattens (B, C, H, W) in the order of (B, H, W, C)."""
    torch = pytest.importorskip("torch")

    class Flatten(torch.nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1).flatten(1)

    return Flatten()


def run(module, images):
    """The module's output for images (B, H, W, C), as a NumPy array."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return module(torch.tensor(np.moveaxis(np.asarray(images), -1, 1))).numpy()


def assert_close(logits, expected):
    """To 1e-4 of what the images change in the logits, which the biases alone do not."""
    scale = np.abs(expected - expected[:1]).max()
    assert scale > 0.05 * np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * scale)
