"""Folded batch normalisation gives the same outputs, and what cannot be folded is named."""

import functools

import flax.linen
import jax
import numpy as np
import pytest
from flax import traverse_util

from dlcore.models import VGG, DenseNet, GoogLeNet, ResNet, SmallDenseNet, SmallResNet
from dlcore.models.cnn.darknet import SMALL_DARKNET, Darknet
from dlcore.nn import BatchNorm, Conv, ConvTranspose, Dense
from dlcore.nn.folding import fold_batch_norm, folded_norms

# Every family that has batch normalisation, the smallest image, and the norms that stay.
NETWORKS = {
    "unrolled blocks": (SmallResNet(3, depth=14, width=0.25), 8, 0),
    "scanned blocks": (SmallResNet(3, depth=44, width=0.25), 8, 0),
    "projections": (SmallResNet(3, depth=8, width=0.25, shortcut="projection"), 8, 0),
    "pre-activation": (SmallResNet(3, depth=14, width=0.25, version=2), 8, 6),
    "bottlenecks": (ResNet(3, depth=50, width=0.07), 32, 0),
    "dense blocks": (SmallDenseNet(3, depth=10, growth=4, bottleneck=True), 8, 6),
    "dense blocks of bottlenecks": (DenseNet(3, growth=4, layers=(2, 2, 1, 1)), 32, 10),
    "Darknet": (Darknet(3, SMALL_DARKNET, width=0.1), 32, 0),
    "VGG": (VGG(3, batch_norm=True, width=0.05, hidden=8), 32, 0),
    "GoogLeNet": (GoogLeNet(3, batch_norm=True, width=0.1), 32, 0),
}
SLOW = {
    "Darknet",
    "projections",
    "scanned blocks",
    "unrolled blocks",
    "VGG",
    "bottlenecks",
    "dense blocks of bottlenecks",
    "GoogLeNet",
}


def variables_of(model, x):
    """Draws all variables, with scales and running statistics that are not those of the start."""
    random = np.random.default_rng(0)

    def drawn(path, leaf):
        noise = random.normal(size=leaf.shape).astype(np.float32)
        match path[-1].key:
            case "kernel":  # He's initialiser; stacked blocks have an axis more.
                return noise * np.float32(np.sqrt(2 / np.prod(leaf.shape[-4:-1])))
            case "scale" | "var":
                return np.exp(0.3 * noise)
            case _:
                return 0.3 * noise

    shapes = jax.eval_shape(model.init, jax.random.key(1), x)
    return jax.tree_util.tree_map_with_path(drawn, shapes)


def outputs(model, variables, x):
    return model.apply(variables, x)[0]


def check(model, variables, x, forward=outputs):
    found = fold_batch_norm(functools.partial(forward, model), variables, x)
    expected = forward(model, variables, x)
    with folded_norms():
        y = forward(model, found.variables, x)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    return found


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in NETWORKS],
)
def test_networks_have_the_same_outputs(name):
    model, size, kept = NETWORKS[name]
    x = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    variables = variables_of(model, x)
    found = check(model, variables, x, lambda *args: jax.jit(outputs, static_argnums=0)(*args))
    assert len(found.kept) == kept
    flat = traverse_util.flatten_dict(variables["params"], sep="/")
    # Auxiliary heads do not run in evaluation.
    norms = {
        path.removesuffix("/scale")
        for path in flat
        if path.endswith("/scale") and not path.startswith("auxiliary")
    }
    assert {*found.norms, *found.kept} == norms and found.norms
    left = traverse_util.flatten_dict(found.variables["params"], sep="/")
    folded = {path.removesuffix("/scale") for path in flat.keys() - left.keys()}
    assert folded == set(found.norms)


class Small(flax.linen.Module):
    """Norms behind a dense layer, a transposed convolution, and a layer that two places read."""

    @flax.linen.compact
    def __call__(self, x, train=False):
        x = BatchNorm(name="alone")(x, train)
        x = ConvTranspose(4, (2, 2), stride=2, name="up")(x)
        x = BatchNorm(epsilon=0.1, name="after_up")(x, train)
        x = Conv(4, (1, 1), name="shared")(x)
        x = x + BatchNorm(name="of_shared")(x, train)
        x = Dense(3, name="dense")(x.mean((1, 2)))
        return BatchNorm(name="after_dense")(x, train), {}


def test_only_what_nothing_else_reads_is_folded():
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 2))
    variables = variables_of(Small(), x)
    found = check(Small(), variables, x)
    assert found.norms == ("after_up", "after_dense")
    assert found.kept == ("alone", "of_shared")
