"""Gradients by parts of the parameters against `jax.value_and_grad` of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Var

from dlcore.nn.remat import remat
from dlcore.runtime.gathered import value_and_grad

LAYERS, C, ROWS = 3, 8, 5
WHOLE = (C, C)


def gather(parts):
    return jax.tree.map(lambda part: part.reshape(WHOLE), parts)


def make(policy, dtype):
    """A net whose layers use their kernel twice, one of two precisions, and its arguments."""

    def layer(x, kernel):
        return jnp.tanh(jnp.tanh(x @ kernel.astype(dtype)) @ kernel.astype(dtype))

    layer = remat(layer, policy)

    def net(params, x, labels):
        for kernel in params:
            x = layer(x.astype(dtype), kernel)
        loss = jnp.sum(jnp.where(labels[:, None] > 0, x, 0.0).astype(jnp.float32) ** 2)
        return loss, {"mean": x.mean(), "labels": labels, "constant": 1.0}

    keys = jax.random.split(jax.random.key(0), LAYERS + 1)
    parts = [jax.random.normal(key, (C * C,)) / C for key in keys[1:]]
    return net, parts, jax.random.normal(keys[0], (ROWS, C)), jnp.array([0, 1, 1, 0, 1])


CASES = pytest.mark.parametrize(
    ("policy", "dtype"),
    [("none", jnp.float32), ("full", jnp.float32), ("none", jnp.bfloat16), ("dots", jnp.bfloat16)],
)


@CASES
def test_value_aux_and_gradient_are_those_of_the_whole(policy, dtype):
    net, parts, x, labels = make(policy, dtype)
    found = jax.jit(value_and_grad(net, gather))(parts, x, labels)

    def by_parts(parts, *rest):
        return net(gather(parts), *rest)

    expected = jax.jit(jax.value_and_grad(by_parts, has_aux=True))(parts, x, labels)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def after_the_value(policy, dtype):
    """The equations of the backward pass, and what they take from the forward pass."""
    net, parts, x, labels = make(policy, dtype)
    eqns = jax.make_jaxpr(value_and_grad(net, gather))(parts, x, labels).jaxpr.eqns
    (barrier,) = (i for i, e in enumerate(eqns) if e.primitive.name == "optimization_barrier")
    before = {var for eqn in eqns[:barrier] for var in eqn.outvars}
    backward = eqns[barrier + 1 :]
    used = {var for eqn in backward for var in eqn.invars if isinstance(var, Var)}
    return backward, [var.aval for var in used & before]


@CASES
def test_no_whole_parameter_is_kept_for_the_backward_pass(policy, dtype):
    _, kept = after_the_value(policy, dtype)
    assert all(aval.shape != WHOLE for aval in kept)


def test_what_is_kept_is_what_rematerialisation_keeps():
    sizes = {
        policy: sum(aval.size for aval in after_the_value(policy, jnp.float32)[1])
        for policy in ("none", "dots", "full")
    }
    assert sizes["full"] < sizes["dots"] < sizes["none"]
    # Each layer's input, and what the loss needs.
    assert sizes["full"] <= (LAYERS + 2) * ROWS * C


def test_what_is_gathered_again_has_the_precision_of_the_copy():
    backward, _ = after_the_value("none", jnp.bfloat16)
    products = [eqn for eqn in backward if eqn.primitive.name == "dot_general"]
    assert len(products) > LAYERS
    assert {var.aval.dtype for eqn in products for var in eqn.invars} == {jnp.dtype(jnp.bfloat16)}
