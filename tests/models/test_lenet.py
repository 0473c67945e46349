"""LeNet-5 against the numbers of its paper."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.models import image_model
from dlcore.models.cnn.digit_codes import output_codes
from dlcore.models.cnn.lenet import C3_INPUTS, PartialConv, TrainableSubsampling

X = jax.random.normal(jax.random.key(1), (2, 32, 32, 1))


@pytest.fixture(scope="module")
def paper():
    model = image_model("lenet5_paper", num_classes=10)
    return model, jax.jit(model.init)(jax.random.key(0), X)


def test_parameters_and_maps_layer_by_layer(paper):
    """The counts and sizes of section II.B."""
    model, variables = paper
    counts = {
        name: sum(leaf.size for leaf in jax.tree.leaves(layer))
        for name, layer in variables["params"].items()
    }
    assert counts == {
        "c1": 156,
        "s2": 12,
        "c3": 1_516,
        "s4": 32,
        "c5": 48_120,
        "f6": 10_164,
    }
    shapes = {name: a.shape[1:] for name, a in jax.eval_shape(model.apply, variables, X)[1].items()}
    assert shapes == {
        "c1": (28, 28, 6),
        "s2": (14, 14, 6),
        "c3": (10, 10, 16),
        "s4": (5, 5, 16),
        "c5": (1, 1, 120),
        "f6": (84,),
        "output": (10,),
    }


def test_connection_table():
    """Table I: 6 maps see 3, 9 see 4, one sees all; every map of S2 is seen by 10."""
    assert [len(inputs) for inputs in C3_INPUTS] == [3] * 6 + [4] * 9 + [6]
    assert np.bincount(np.concatenate(C3_INPUTS)).tolist() == [10] * 6
    assert len(set(C3_INPUTS)) == 16


def test_partial_convolution_sees_only_its_inputs():
    x = jax.random.normal(jax.random.key(2), (1, 6, 6, 6))
    conv = PartialConv(C3_INPUTS, 5)
    y, variables = conv.init_with_output(jax.random.key(0), x)
    kernel = np.asarray(variables["params"]["kernel"])
    connection = 0
    for output, inputs in enumerate(C3_INPUTS):
        expected = np.zeros((2, 2))
        for source in inputs:
            for i, j in np.ndindex(2, 2):
                window = x[0, i : i + 5, j : j + 5, source]
                expected[i, j] += (np.asarray(window) * kernel[..., connection]).sum()
            connection += 1
        np.testing.assert_allclose(y[0, ..., output], expected, rtol=1e-4, atol=1e-5)
        seen = jax.grad(lambda x, output=output: conv.apply(variables, x)[..., output].sum())(x)
        assert set(np.flatnonzero(np.abs(seen).sum((0, 1, 2)))) == set(inputs)
    assert connection == 60


def test_subsampling_by_hand():
    params = {"coefficient": jnp.array([0.5]), "bias": jnp.array([1.0])}
    x = jnp.array([[1.0, 2, 0, 1], [3, 4, 0, 1]]).reshape(1, 2, 4, 1)
    y = TrainableSubsampling().apply({"params": params}, x)
    np.testing.assert_array_equal(y.ravel(), [6, 2])


def test_weights_start_within_their_bounds(paper):
    """+-2.4 / fan in, and close to it somewhere; biases at 0."""
    params = paper[1]["params"]
    fan_ins = {"c1": 25, "c5": 400, "f6": 120}
    for name, fan_in in fan_ins.items():
        largest = np.abs(params[name]["kernel"]).max() * fan_in / 2.4
        assert 0.9 < largest <= 1 + 1e-6
        assert (params[name]["bias"] == 0).all()
    fan_in = 25 * np.repeat([len(i) for i in C3_INPUTS], [len(i) for i in C3_INPUTS])
    scaled = np.abs(params["c3"]["kernel"]) * fan_in / 2.4
    assert (scaled <= 1 + 1e-6).all() and (scaled.max((0, 1)) > 0.5).all()


def test_logits_are_minus_the_squared_distances(paper):
    model, variables = paper
    logits, activations = model.apply(variables, X)
    distances = ((np.asarray(activations["f6"])[:, None] - output_codes(10)) ** 2).sum(-1)
    np.testing.assert_allclose(logits, -distances, rtol=1e-5)
    # At the start the network knows nothing: about log 10.
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.array([3, 8]))
    assert abs(loss.mean() - np.log(10)) < 0.1


@pytest.mark.parametrize("num_classes", [2, 10, 47])
def test_codes(num_classes):
    codes = output_codes(num_classes)
    assert codes.shape == (num_classes, 84) and set(np.unique(codes)) == {-1, 1}
    np.testing.assert_array_equal(codes, output_codes(num_classes))
    different = (codes[:, None] != codes).sum(-1) + 84 * np.eye(num_classes)
    assert different.min() >= 8
