"""The towers of pictures and texts against plain NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.losses import batch_matches
from dlcore.models import MLP
from dlcore.models.text import RecurrentEncoder, TransformerEncoder
from dlcore.models.two_towers import LARGEST_SCALE, Matching, TextTower, TwoTowers
from dlcore.nn.transformer import TransformerConfig
from dlcore.types import Mean

D, V = 5, 9
TOKENS = jnp.array([[3, 4, 5], [6, 7, 0], [8, 0, 0]])
LENGTHS = jnp.array([3, 2, 1])
IMAGES = jax.random.normal(jax.random.key(3), (3, 4, 4, 1))


def towers(loss="infonce", encoder=None, pooling="mean"):
    encoder = encoder or RecurrentEncoder(V, 6, ())
    build = functools.partial(MLP, num_classes=D, features=(7,))
    return TwoTowers(build, TextTower(encoder, D, pooling), Matching(loss))


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_a_bag_is_the_projected_mean_of_its_words():
    net = towers()
    variables = jax.jit(net.init)(jax.random.key(0), IMAGES, TOKENS, LENGTHS)
    texts = variables["params"]["texts"]
    table = np.asarray(texts["encoder"]["embedding"]["embedding"])
    means = np.stack(
        [table[row[:length]].mean(0) for row, length in zip(TOKENS, LENGTHS, strict=True)]
    )
    kernel, bias = (np.asarray(texts["output"][name]) for name in ("kernel", "bias"))
    projected = means @ kernel + bias
    found, activations = net.apply(variables, TOKENS, LENGTHS, method="of_texts")
    np.testing.assert_allclose(activations["pooled"], means, rtol=1e-5)
    np.testing.assert_allclose(found, unit(projected), rtol=1e-4, atol=1e-6)


def test_pictures_are_the_classifier_s_outputs_on_the_unit_sphere():
    net = towers()
    variables = jax.jit(net.init)(jax.random.key(0), IMAGES, TOKENS, LENGTHS)
    logits, _ = net.build().apply({"params": variables["params"]["pictures"]}, IMAGES)
    found, _ = net.apply(variables, IMAGES, method="of_pictures")
    np.testing.assert_allclose(found, unit(np.asarray(logits)), rtol=1e-5)
    both = net.apply(variables, IMAGES, TOKENS, LENGTHS)
    np.testing.assert_allclose(both[0], found, rtol=1e-6)


def test_a_transformer_sees_the_whole_text_and_no_padding():
    config = TransformerConfig(features=8, layers=1, heads=2)
    net = towers(encoder=TransformerEncoder(V, config))
    variables = jax.jit(net.init)(jax.random.key(0), IMAGES, TOKENS, LENGTHS)
    of_texts = jax.jit(functools.partial(net.apply, method="of_texts"))
    # The branches of a block begin as 0.
    variables = jax.tree.map(lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size)).reshape(x.shape),
                             variables)  # fmt: skip
    found, activations = of_texts(variables, TOKENS, LENGTHS)
    other = of_texts(variables, TOKENS.at[1, 2].set(8), LENGTHS)[0]
    np.testing.assert_allclose(other, found, rtol=1e-5, atol=1e-6)
    last = of_texts(variables, TOKENS.at[0, 2].set(8), LENGTHS)[1]
    assert np.abs(last["layer_0"][0, 0] - activations["layer_0"][0, 0]).max() > 1e-3


@pytest.mark.parametrize("loss", ["infonce", "vse++", "vse0"])
def test_only_a_temperature_is_learned_beside_the_towers(loss):
    net = towers(loss)
    variables = jax.jit(net.init)(jax.random.key(0), IMAGES, TOKENS, LENGTHS)
    named = {"pictures", "texts"} | ({"log_scale"} if loss == "infonce" else set())
    assert {*variables["params"]} == named

    def total(params):
        both = net.apply({"params": params}, IMAGES, TOKENS, LENGTHS)
        matches = batch_matches(*both, jnp.arange(3), jnp.arange(3), jnp.ones(3))
        return Mean.of(*net.apply({"params": params}, matches, method="losses")).compute()

    gradient = jax.jit(jax.grad(total))(variables["params"])
    leaves = [float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)]
    assert np.isfinite(leaves).all() and max(leaves) > 0
    if loss == "infonce":
        assert gradient["log_scale"] != 0
        scale = net.apply(variables, method="scale")
        assert float(scale) == pytest.approx(1 / 0.07, rel=1e-5)
        high = {"params": {**variables["params"], "log_scale": jnp.array(50.0)}}
        assert float(net.apply(high, method="scale")) == pytest.approx(LARGEST_SCALE, rel=1e-5)


def test_unknown_losses_and_poolings_are_refused():
    with pytest.raises(InputError, match="pooling"):
        towers(pooling="first").init(jax.random.key(0), IMAGES, TOKENS, LENGTHS)
    net = towers("hinge")
    variables = jax.jit(net.init)(jax.random.key(0), IMAGES, TOKENS, LENGTHS)
    matches = batch_matches(jnp.eye(3), jnp.eye(3), jnp.arange(3), jnp.arange(3), jnp.ones(3))
    with pytest.raises(InputError, match="vse"):
        net.apply(variables, matches, method="losses")
