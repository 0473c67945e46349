"""Policies of rematerialisation give equal results and keep the values that they should."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.errors import InputError
from dlcore.models.cnn.small_resnet import SmallResNet
from dlcore.nn.remat import POLICIES, remat, remat_module
from dlcore.nn.sequences import length_mask
from dlcore.nn.transformer import Transformer, TransformerConfig
from dlcore.plan.step import step_flops
from dlcore.plan.walk import operations

REPEATING = [
    "full",
    pytest.param("dots", marks=pytest.mark.slow),
    pytest.param("dots_with_no_batch_dims", marks=pytest.mark.slow),
]
CONFIG = TransformerConfig(features=16, layers=1, heads=2, dropout=0.3)
X = jax.random.normal(jax.random.key(0), (2, 8, 16))
MEMORY = jax.random.normal(jax.random.key(1), (2, 5, 16))


class Decoder(nn.Module):
    """An encoder-decoder of two transformers."""

    policy: str

    def setup(self):
        config = dataclasses.replace(CONFIG, remat=self.policy)
        self.encoder = Transformer(config, causal=False)
        self.decoder = Transformer(config, reads_memory=True)

    def __call__(self, x, train=False):
        lengths = jnp.array([5, 3])
        _, memory, _ = self.encoder(MEMORY, lengths=lengths, train=train)
        mask = length_mask(lengths, 5)[:, None, None]
        memory = self.decoder.project_keys_values(memory)
        _, y, activations = self.decoder(x, memory=memory, memory_mask=mask, train=train)
        return y, activations


def gradient(policy):
    model = Decoder(policy)

    def loss(variables):
        y, _ = model.apply(variables, X, train=True, rngs={"dropout": jax.random.key(0)})
        return jnp.sum(jnp.sin(y) * X)

    return model, jax.value_and_grad(loss)


@pytest.fixture(scope="module")
def plain():
    model, step = gradient("none")
    variables = jax.jit(model.init)(jax.random.key(0), X)
    return variables, jax.jit(step)(variables)


@pytest.mark.parametrize("policy", REPEATING)
def test_a_transformer_has_the_same_variables_loss_and_gradient(policy, plain):
    """With dropout, masks and a memory, gradients are equal to 1e-5 of the largest."""
    variables, expected = plain
    model, step = gradient(policy)
    shapes = jax.eval_shape(model.init, jax.random.key(0), X)
    assert shapes == jax.eval_shape(lambda: variables)
    found = jax.jit(step)(variables)

    def compare(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1e-3, np.abs(b).max()))

    jax.tree.map(compare, found, expected)


def repeated(function, *args):
    """Returns the shapes of the products that the backward pass recomputes."""
    return [
        one.shape
        for one in operations(function, *args)
        if one.again and one.primitive in ("dot_general", "conv_general_dilated")
    ]


def test_what_is_computed_again_in_a_transformer(plain):
    variables, _ = plain
    again = {policy: repeated(gradient(policy)[1], variables) for policy in POLICIES}
    assert again["none"] == again["dots"] == []
    # Scores and mixtures have batch dimensions; dense layers have none, and their results stay.
    assert again["dots_with_no_batch_dims"] and len(again["full"]) > 12
    assert all(len(shape) >= 4 for shape in again["dots_with_no_batch_dims"])
    assert any(len(shape) < 4 for shape in again["full"])


@pytest.mark.slow
def test_the_models_flops_do_not_depend_on_it(plain):
    variables, _ = plain
    found = {
        step_flops(lambda v, x, p=policy: gradient(p)[1](v), variables, X) for policy in POLICIES
    }
    assert len(found) == 1


@pytest.mark.parametrize("policy, count", [("none", 0), ("dots", 0), ("full", 6)])
def test_what_is_computed_again_in_a_residual_net(policy, count):
    """Depth 8 has 3 stages of one block of 2 convolutions each."""
    net = SmallResNet(10, depth=8, width=0.25, remat=policy)
    images = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), images)

    def loss(variables, x):
        (logits, _), _ = net.apply(variables, x, True, mutable=["batch_stats"])
        return jnp.sum(logits**2)

    def step(variables, x):
        return jax.value_and_grad(lambda p: loss({**variables, "params": p}, x))(
            variables["params"]
        )

    # The gradient of a block's last convolution needs only its input.
    assert len(repeated(step, variables, images)) == count


@pytest.mark.parametrize("looped", [False, True])
def test_a_pure_function(looped):
    def layer(x, w):
        return jnp.tanh(jnp.tanh(x @ w) @ w)

    def loss(w, x, policy):
        return jnp.sum(remat(layer, policy, looped=looped)(x, w))

    w = jnp.eye(3) / 2
    again = {
        policy: repeated(lambda w, p=policy: jax.value_and_grad(loss)(w, jnp.ones((2, 3)), p), w)
        for policy in POLICIES
    }
    assert {policy: len(found) for policy, found in again.items()} == {
        "none": 0,
        "full": 2,
        "dots": 0,
        "dots_with_no_batch_dims": 0,
    }


def test_unknown_policies():
    for make in (remat, remat_module):
        with pytest.raises(InputError, match="unknown remat policy 'all'; choose one of: dots"):
            make(lambda x: x, "all")
