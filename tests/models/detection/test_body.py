"""The bodies of detectors: classifiers without their heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.models import IMAGE_MODELS
from dlcore.models.detection.body import make_body
from dlcore.paths import leaves_by_path

# Model, image side, stride, options: the last activation of that stride.
LAST = {
    "vgg11": (64, 8, {"width": 1 / 32}, "conv4_2"),
    "resnet20": (16, 2, {"depth": 8, "width": 0.25}, "stage_1_block_0"),
    "densenet121": (64, 8, {"layers": (1, 1, 1, 1), "growth": 4}, "block_1"),
    "darknet_small": (32, 8, {"width": 1 / 12}, "conv3_5"),
    "googlenet": (96, 16, {"width": 1 / 16, "auxiliary": True}, "inception_4e"),
}


@pytest.mark.parametrize(
    ("train", "name"),
    [
        (True, "resnet20"),
        pytest.param(True, "darknet_small", marks=pytest.mark.slow),
        pytest.param(False, "resnet20", marks=pytest.mark.slow),
        pytest.param(False, "darknet_small", marks=pytest.mark.slow),
    ],
)
def test_a_body_computes_what_the_classifier_computes(name, train):
    """Its parameters are the classifier's own, by their names; the head's are not there."""
    side, stride, options, layer = LAST[name]
    images = jax.random.normal(jax.random.key(1), (2, side, side, 3))
    body, (found,) = make_body(name, (stride,), (side, side, 3), **options)
    network = IMAGE_MODELS[name].build(num_classes=7, **options)
    whole = jax.jit(network.init)(jax.random.key(2), images)
    own = jax.jit(body.init)(jax.random.key(0), images)
    of_classifier, of_body = leaves_by_path(whole), leaves_by_path(own)
    assert of_body.keys() < of_classifier.keys() and not any("output" in path for path in of_body)
    taken = jax.tree_util.tree_map_with_path(
        lambda path, leaf: of_classifier["/".join(key.key for key in path)], own
    )
    mutable = ["batch_stats"] if train else []
    rngs = {"dropout": jax.random.key(3)}
    (_, expected), changed = network.apply(whole, images, train, rngs=rngs, mutable=mutable)
    ((features,), activations), new = body.apply(taken, images, train, rngs=rngs, mutable=mutable)
    assert found.name == layer and found.shape == features.shape[1:]
    assert found.shape[:2] == (side // stride,) * 2
    np.testing.assert_array_equal(features, expected[layer])
    assert [*activations][-1] == layer
    for path, leaf in leaves_by_path(new).items():
        np.testing.assert_array_equal(leaf, leaves_by_path(changed)[path])
    assert jax.tree.structure(new) == jax.tree.structure({k: taken[k] for k in new})


@pytest.mark.slow
def test_no_parameter_of_a_body_is_unused():
    images = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    body, _ = make_body("darknet_small", (4, 8), (32, 32, 3), width=1 / 12)
    variables = jax.jit(body.init)(jax.random.key(0), images)

    def loss(params):
        maps, _ = body.apply({**variables, "params": params}, images)
        return sum(jnp.sum(x**2) for x in maps)

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    for path, leaf in leaves_by_path(gradient).items():
        assert np.abs(leaf).max() > 0, path


@pytest.mark.parametrize("name", LAST)
def test_the_last_map_of_a_stride(name):
    side, stride, options, layer = LAST[name]
    body, (found,) = make_body(name, (stride,), (side, side, 3), **options)
    assert found.name == layer and body.layers == (layer,)


def test_several_strides_share_one_body():
    body, maps = make_body("resnet18", (8, 16, 32), (64, 64, 3), width=1 / 16)
    assert [found.stride for found in maps] == [8, 16, 32]
    features, _ = jax.eval_shape(
        body.init_with_output, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
    )[0]
    assert [x.shape[1] for x in features] == [8, 4, 2]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mlp", "mlp has no map of stride 8 for images of 32x32; choose a convolutional net"),
        ("resnet20", "resnet20 has no map of stride 8 .* it has maps of stride 1, 2, 4"),
    ],
)
def test_a_stride_that_a_model_lacks(name, words):
    with pytest.raises(InputError, match=words):
        make_body(name, (8,), (32, 32, 3))
