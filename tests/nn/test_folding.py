"""Batch normalisation that is folded into the layer before it changes no output."""

import functools

import flax.linen as lin
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import nn
from dlcore.models import IMAGE_MODELS
from dlcore.nn.folding import fold_norms


def small(name, **options):
    return IMAGE_MODELS[name].build(num_classes=4, **options)


# Name: (model, image size, normalisations that are folded, that stay).
NETWORKS = {
    "resnet8": (small("resnet20", width=0.5, depth=8), 8, 7, 0),
    "resnet8, projections": (small("resnet20", width=0.5, depth=8, shortcut="projection"), 8, 9, 0),
    "resnet8, version 2": (small("resnet20", width=0.5, depth=8, version=2), 8, 4, 3),
    "resnet18": (small("resnet18", width=1 / 16), 32, 20, 0),
    "resnet20, unrolled": (small("resnet20", width=0.5, depth=20), 8, 13, 0),
    "scanned": (small("resnet20", width=0.5, depth=20, scan_from=2), 8, 13, 0),
    "vgg11": (small("vgg11", width=1 / 32, hidden=32, batch_norm=True), 32, 8, 0),
    "googlenet": (
        small("googlenet", width=1 / 16, batch_norm=True, auxiliary=False), 32, 57, 0,
    ),
    "densenet7": (small("densenet40", depth=7, growth=4), 8, 0, 6),
    "densenet, bottlenecks": (small("densenet121", layers=(1, 1, 1, 1), growth=4), 64, 5, 8),
    "darknet": (small("darknet_small", width=1 / 6), 16, 10, 0),
}  # fmt: skip


def trained(model, x, seed=0):
    """Variables as training could leave them: nothing is 0 or 1."""
    variables = jax.jit(model.init)(jax.random.key(seed), x)
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(
        tree,
        [
            leaf + jnp.asarray(rng.uniform(0.05, 0.5, leaf.shape), leaf.dtype)
            if leaf.ndim < 3
            else leaf
            for leaf in leaves
        ],
    )


# Those that take long to compile.
SLOW = {"googlenet", "resnet18"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NETWORKS]
)
def test_outputs_stay(name):
    model, size, count, stay = NETWORKS[name]
    x = jax.random.normal(jax.random.key(1), (2, size, size, 3))
    variables = trained(model, x)
    folded = fold_norms(model, variables, jax.ShapeDtypeStruct(x.shape, x.dtype))
    assert (len(folded.layers), len(folded.kept)) == (count, stay)
    expected, _ = jax.jit(model.apply)(variables, x)
    y, _ = jax.jit(folded.apply)(folded.variables, x)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.abs(expected).max() > 1e-3
    plain, _ = jax.jit(model.apply)(folded.variables, x)
    np.testing.assert_allclose(plain, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    if count:
        # Without its norms a model needs none of their scales: they are not read.
        params = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.full_like(leaf, jnp.nan) if is_folded(path, folded) else leaf,
            folded.variables,
        )
        np.testing.assert_array_equal(jax.jit(folded.apply)(params, x)[0], y)


def is_folded(path, folded):
    """Whether a leaf is one of a folded norm, other than its bias."""
    _, *names, leaf = (part.key for part in path)
    return "/".join(names) in folded.layers and leaf != "bias"


class Twice(lin.Module):
    """What must not be folded: one layer before two norms, and an output that others read too."""

    @lin.compact
    def __call__(self, x, train=False):
        shared = nn.Dense(3, name="shared")
        x = nn.BatchNorm(name="first")(shared(x), train)
        x = nn.BatchNorm(name="second")(shared(x), train)
        read = nn.Dense(3, name="read")(x)
        x = nn.BatchNorm(name="third")(read, train) + read
        alone = nn.Dense(3, name="alone")(x)
        x = nn.BatchNorm(name="fourth")(alone, train)
        kept = nn.Dense(3, name="kept")(x)
        return nn.BatchNorm(name="fifth")(jnp.tanh(nn.BatchNorm(name="sixth")(kept, train))), kept


def test_what_others_read_stays():
    model, x = Twice(), jax.random.normal(jax.random.key(1), (4, 3))
    variables = trained(model, x)
    folded = fold_norms(model, variables, x)
    assert folded.layers == {"fourth": "alone"}
    assert folded.kept == {
        "first": "shared is applied several times",
        "second": "shared is applied several times",
        "third": "more than it reads read",
        "fifth": "it does not read a convolution or dense layer",
        "sixth": "more than it reads kept",
    }
    expected, y = model.apply(variables, x), folded.apply(folded.variables, x)
    for one, other in zip(y, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_nothing_is_computed_and_bfloat16_stays():
    model, size, _, _ = NETWORKS["resnet8"]
    x = jnp.zeros((1, size, size, 3), jnp.bfloat16)
    variables = trained(model, jnp.zeros((1, size, size, 3)))
    params = jax.tree.map(functools.partial(jnp.asarray, dtype=jnp.bfloat16), variables["params"])
    folded = fold_norms(model, {**variables, "params": params}, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(folded.variables["params"])} == {x.dtype}
    assert folded.apply(folded.variables, x)[0].dtype == x.dtype
