"""Gradients by parts of the parameters against `jax.value_and_grad` of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Var

from dlcore.nn.remat import remat
from dlcore.runtime.gathered import apply, value_and_grad

LAYERS, C, ROWS = 4, 8, 5
WHOLE = (C, C)


def gather(part):
    return part.reshape(WHOLE)


GATHERS = [gather] * LAYERS


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
    [
        ("none", jnp.float32),
        pytest.param("full", jnp.float32, marks=pytest.mark.slow),
        pytest.param("none", jnp.bfloat16, marks=pytest.mark.slow),
        ("dots", jnp.bfloat16),
    ],
)


@CASES
def test_value_aux_and_gradient_are_those_of_the_whole(policy, dtype):
    net, parts, x, labels = make(policy, dtype)
    found = jax.jit(value_and_grad(net, GATHERS))(parts, x, labels)

    def by_parts(parts, *rest):
        return net(jax.tree.map(gather, parts), *rest)

    expected = jax.jit(jax.value_and_grad(by_parts, has_aux=True))(parts, x, labels)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def traced(policy, dtype):
    net, parts, x, labels = make(policy, dtype)
    return jax.make_jaxpr(value_and_grad(net, GATHERS))(parts, x, labels).jaxpr


def variables(eqn):
    return [atom for atom in eqn.invars if isinstance(atom, Var)]


def gathers_of(eqns):
    """The numbers of the equations that gather."""
    return [
        number
        for number, eqn in enumerate(eqns)
        if eqn.primitive.name == "reshape" and eqn.outvars[0].aval.shape == WHOLE
    ]


def backward_pass(policy, dtype):
    """Its equations from the first gather on, and what they take from before, but for parts."""
    eqns = traced(policy, dtype).eqns
    first = gathers_of(eqns)[LAYERS]
    before = {var for eqn in eqns[:first] for var in eqn.outvars}
    used = {var for eqn in eqns[first:] for var in variables(eqn)}
    kept = [var.aval for var in used & before]
    return eqns[first:], [aval for aval in kept if aval.shape != (C * C,)]


@CASES
def test_at_most_two_layers_are_whole(policy, dtype):
    eqns = traced(policy, dtype).eqns
    last = {var: number for number, eqn in enumerate(eqns) for var in variables(eqn)}
    lives = [(begin, last[eqns[begin].outvars[0]]) for begin in gathers_of(eqns)]
    whole = [sum(begin <= at <= end for begin, end in lives) for at in range(len(eqns))]
    assert max(whole) == 2
    assert len(lives) > LAYERS  # the backward pass gathers, too


@CASES
def test_a_layer_waits_for_the_layer_before_the_one_before_and_for_its_gradients(policy, dtype):
    eqns = traced(policy, dtype).eqns
    causes = {}  # of each value: the equations that it follows from
    for number, eqn in enumerate(eqns):
        cause = {number}.union(*(causes.get(var, set()) for var in variables(eqn)))
        causes.update(dict.fromkeys(eqn.outvars, cause))

    gathers = gathers_of(eqns)
    cuts = [
        number
        for number, eqn in enumerate(eqns)
        if eqn.primitive.name == "reshape" and eqn.outvars[0].aval.shape == (C * C,)
    ]
    assert len(cuts) == LAYERS
    for turn, number in enumerate(gathers):
        cause = causes[eqns[number].outvars[0]] - {number}
        backward = turn - LAYERS
        awaited = max(turn - 1, 0) if backward < 0 else LAYERS + max(backward - 1, 0)
        assert cause & set(gathers) == set(gathers[:awaited])
        assert backward < 2 or cuts[backward - 2] in cause


def test_what_is_kept_is_what_rematerialisation_keeps():
    sizes = {
        policy: sum(aval.size for aval in backward_pass(policy, jnp.float32)[1])
        for policy in ("none", "dots", "full")
    }
    assert sizes["full"] < sizes["dots"] < sizes["none"]
    # Each layer's input, and what the loss needs.
    assert sizes["full"] <= (LAYERS + 2) * ROWS * C


def test_what_is_gathered_again_has_the_precision_of_the_copy():
    backward, _ = backward_pass("none", jnp.bfloat16)
    products = [eqn for eqn in backward if eqn.primitive.name == "dot_general"]
    assert len(products) > LAYERS
    assert {var.aval.dtype for eqn in products for var in eqn.invars} == {jnp.dtype(jnp.bfloat16)}


def test_a_function_of_the_whole_by_parts():
    net, parts, x, labels = make("none", jnp.bfloat16)

    def both(params, *rest):
        return net(params, *rest), params

    (found, _), whole = jax.jit(apply(both, GATHERS))(parts, x, labels)
    expected = list(map(gather, parts))
    np.testing.assert_allclose(found, net(expected, x, labels)[0], rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, whole, expected)


def test_parameters_that_are_whole_are_not_gathered():
    net, parts, x, labels = make("none", jnp.float32)
    mixed = [parts[0], gather(parts[1]), *parts[2:]]
    gathers = [gather, None, gather, gather]
    jaxpr = jax.make_jaxpr(value_and_grad(net, gathers))(mixed, x, labels).jaxpr
    assert len(gathers_of(jaxpr.eqns)) == 2 * (LAYERS - 1)
    _, found = value_and_grad(net, gathers)(mixed, x, labels)
    _, expected = value_and_grad(net, GATHERS)(parts, x, labels)
    np.testing.assert_allclose(found[1], gather(expected[1]), rtol=1e-6)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
