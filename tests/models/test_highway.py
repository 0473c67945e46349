"""Highway networks against their papers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from dlcore.check import layer_table
from dlcore.errors import InputError
from dlcore.models.cnn.highway import HighwayCNN, HighwayMLP


def trace(model, *shape):
    """(parameters, activations in order) for images of that shape, nothing computed."""
    order = []

    def initialise(images):
        (_, a), variables = model.init_with_output(jax.random.key(0), images)
        order.extend(a)
        return a, variables["params"]

    a, params = jax.eval_shape(initialise, jnp.ones((1, *shape)))
    return params, {name: a[name].shape[1:] for name in order}


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("gated", [True, False])
def test_the_mlp_is_a_loop_over_its_layers(gated):
    model = HighwayMLP(3, depth=4, features=5, gated=gated, transform_bias=-1.0)
    x = jax.random.normal(jax.random.key(1), (6, 2, 4, 1))
    (logits, a), variables = jax.jit(model.init_with_output)(jax.random.key(0), x)
    params = jax.tree.map(np.asarray, variables["params"])
    y = np.tanh(np.asarray(x).reshape(6, 8) @ params["layer_0"]["kernel"])
    affine = params["layers"]["affine"] if gated else params["layers"]
    for i in range(3):
        total = y @ affine["kernel"][i] + affine["bias"][i]
        if gated:
            gate = 1 / (1 + np.exp(-total[:, 5:]))
            np.testing.assert_allclose(a[f"gate_{i + 1}"], gate, rtol=1e-5)
            y = np.tanh(total[:, :5]) * gate + y * (1 - gate)
        else:
            y = np.tanh(total)
        np.testing.assert_allclose(a[f"layer_{i + 1}"], y, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(logits, y @ params["output"]["kernel"], rtol=1e-4, atol=1e-6)


def test_each_layer_of_the_mlp_is_drawn_by_itself():
    init = jax.jit(HighwayMLP(3, depth=5).init)
    kernels = init(jax.random.key(0), jnp.ones((1, 8)))["params"]["layers"]["affine"]
    for i, j in ((0, 1), (1, 2), (0, 3)):
        assert (kernels["kernel"][i] != kernels["kernel"][j]).all()
    # He's: the variance is 2 / 50 however many layers are stacked.
    assert kernels["kernel"].var() == pytest.approx(2 / 50, rel=0.05)


@pytest.mark.parametrize("depth", [10, 20, 50, 100])
def test_gated_and_plain_layers_of_the_paper_have_as_many_parameters(depth):
    """2015a, section 3.1: 50 highway or 71 plain units, about 5,000 parameters per layer."""
    gated, _ = trace(HighwayMLP(10, depth=depth), 28, 28, 1)
    plain, shapes = trace(HighwayMLP(10, depth=depth, features=71, gated=False), 28, 28, 1)
    assert count(gated["layers"]) == (depth - 1) * 5_100
    assert count(plain["layers"]) == (depth - 1) * 5_112
    assert count(gated) == 785 * 50 + (depth - 1) * 5_100 + 51 * 10
    assert list(shapes) == [*(f"layer_{i}" for i in range(depth)), "output"]


def test_the_loop_shows_in_the_layer_table():
    """Its multiply-adds are those of all layers, and no parameter is left unused."""
    model = HighwayMLP(10, depth=6)
    images = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    rows = layer_table(lambda v, x: model.apply(v, x)[0], variables, images)
    sums = {row.path: (row.parameters, row.multiply_adds) for row in rows if row.path}
    assert sums == {
        "layer_0": (65 * 50, 64 * 50),
        "layers/affine": (5 * 5_100, 5 * 5_000),
        "output": (51 * 10, 50 * 10),
    }


@pytest.mark.parametrize("features, parameters", [(16, 38_730), (32, 151_178)])
def test_parameters_of_the_cnn(features, parameters):
    """2015b, table 1: 39 K and 151 K. By hand: the first layer, 8 gated ones, 3x3 maps to 10."""
    params, shapes = trace(HighwayCNN(10, features=features), 28, 28, 1)
    gated = 8 * 2 * (9 * features + 1) * features
    assert parameters == 10 * features + gated + (9 * features + 1) * 10
    assert count(params) == parameters
    assert shapes["pool_0"] == (14, 14, features) and shapes["pool_2"] == (3, 3, features)
    order = [name for name in shapes if not name.startswith("gate")]
    assert order == [
        "conv_0",
        "conv_1",
        "conv_2",
        "pool_0",
        "conv_3",
        "conv_4",
        "conv_5",
        "pool_1",
        "conv_6",
        "conv_7",
        "conv_8",
        "pool_2",
        "output",
    ]


@pytest.mark.parametrize("depth", range(4, 33))
def test_pools_of_any_depth(depth):
    """Three, which divide the convolutions to within one; the last one follows them all."""
    _, shapes = trace(HighwayCNN(10, depth=depth, width=0.25, gated=False), 8, 8, 1)
    order = list(shapes)
    at = [0, *(order.index(f"pool_{i}") - i for i in range(3))]
    assert at[3] == depth - 1 and shapes["pool_2"] == (1, 1, 8)
    assert max(np.diff(at)) - min(np.diff(at)) <= 1


def test_gates_of_the_cnn_start_nearly_closed():
    model = HighwayCNN(4, features=4, depth=7, transform_bias=-3.0)
    x = jnp.ones((2, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    zeros = {**variables["params"]}
    for name in [name for name in zeros if name.startswith("conv_") and name != "conv_0"]:
        affine = zeros[name]["affine"]
        zeros[name] = {"affine": {**affine, "kernel": jnp.zeros_like(affine["kernel"])}}
    _, a = jax.jit(model.apply)({"params": zeros}, x)
    gates = {name: value for name, value in a.items() if name.startswith("gate_")}
    assert list(gates) == [f"gate_{i}" for i in range(1, 6)]
    for value in gates.values():
        np.testing.assert_allclose(value, 1 / (1 + np.exp(3)), rtol=1e-6)
    # With kernels of zero h is 0, and each layer only takes its gate's share away.
    np.testing.assert_allclose(a["conv_1"], (1 - a["gate_1"]) * a["conv_0"], rtol=1e-6)


@pytest.mark.slow
def test_fifty_layers_learn_where_plain_ones_do_not():
    """The paper's claim, on thirty-two digits and by its optimizer."""
    digits = load_digits()
    x = jnp.asarray(digits.images[:32, ..., None] / 8 - 1, jnp.float32)
    labels = jnp.asarray(digits.target[:32])
    tx = optax.sgd(0.1, momentum=0.9)

    def train(model):
        def loss_fn(params):
            logits, _ = model.apply({"params": params}, x, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        def step(carry, _):
            params, state = carry
            loss, gradient = jax.value_and_grad(loss_fn)(params)
            updates, state = tx.update(gradient, state)
            return (optax.apply_updates(params, updates), state), loss

        params = jax.jit(model.init)(jax.random.key(0), x)["params"]
        return jax.jit(lambda carry: jax.lax.scan(step, carry, length=50)[1])(
            (params, tx.init(params))
        )

    assert train(HighwayMLP(10))[-1] < 0.3
    plain = train(HighwayMLP(10, features=71, gated=False))
    assert plain[-1] > 2


@pytest.mark.parametrize("model, least", [(HighwayMLP, 2), (HighwayCNN, 4)])
def test_too_shallow(model, least):
    jax.eval_shape(model(10, depth=least).init, jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    with pytest.raises(InputError, match=f"of {least - 1} layers is too shallow; choose {least}"):
        model(10, depth=least - 1).init(jax.random.key(0), jnp.ones((1, 8, 8, 1)))


def test_smallest_image():
    with pytest.raises(InputError, match="8x7 pixels are too small for highway_cnn"):
        HighwayCNN(10).init(jax.random.key(0), jnp.ones((1, 8, 7, 1)))
