"""Captioners: their search reads what training does, and the picture matters."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore.decode import greedy
from dlcore.models.captioning import (
    Captioner,
    ShowAndTell,
    ShowAttendAndTell,
    TransformerTeller,
    Words,
)
from dlcore.models.detection.body import make_body
from dlcore.models.text.prediction import log_probs
from dlcore.nn.transformer import TransformerConfig

V, T = 11, 4


def make(kind: str, dropout: float = 0.0) -> Captioner:
    body, (seen,) = make_body("strided_cnn", (4,), (12, 8, 1), filters=(4, 6))
    assert seen.shape == (3, 2, 6)
    words = Words(V, 8, dropout)
    decoders: dict[str, Any] = {
        "lstm": lambda: ShowAndTell(words, 5),
        "attention": lambda: ShowAttendAndTell(words, 5, (6, 6)),
        "transformer": lambda: TransformerTeller(words, TransformerConfig(8, 2, 2), 6),
    }
    return Captioner(body, decoders[kind]())


KINDS = ("lstm", "attention", "transformer")
some_kinds = pytest.mark.parametrize(
    "kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[:2]), KINDS[2]]
)


@functools.cache
def prepared(kind: str) -> tuple[Captioner, Any, jax.Array, jax.Array]:
    model = make(kind)
    draw = np.random.default_rng(0)
    images = jnp.asarray(draw.normal(size=(2, 12, 8, 1)), jnp.float32)
    inputs = jnp.asarray(draw.integers(1, V, (2, T)), jnp.int32)
    variables = jax.jit(model.init)(jax.random.key(0), images, inputs)
    # Branches of a transformer start at 0, through which no gradient gets.
    variables = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(draw.normal(size=leaf.shape) / 10, leaf.dtype), variables
    )
    return model, variables, images, inputs


@some_kinds
def test_next_token_is_teacher_forcing(kind: str) -> None:
    model, variables, images, inputs = prepared(kind)
    call = functools.partial(jax.jit(model.apply, static_argnames="method"), variables)
    prediction, activations = call(images, inputs)
    wanted = log_probs(prediction)
    assert wanted.shape == (2, T, V)
    memory = call(images, method="encode")
    carry = model.apply(variables, memory, T, method="initial_carry")
    # Two hypotheses of each picture, of which the second reads other tokens.
    carry = jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, axis=0), carry)
    other = inputs % 3 + 1
    second = log_probs(call(images, other)[0])
    for step in range(T):
        tokens = jnp.stack([inputs[:, step], other[:, step]], 1).reshape(-1)
        carry, found = call(carry, tokens, memory, method="next_token")
        found = found.reshape(2, 2, V)
        np.testing.assert_allclose(found[:, 0], wanted[:, step], atol=1e-5)
        np.testing.assert_allclose(found[:, 1], second[:, step], atol=1e-5)
    if kind == "lstm":
        assert "attention" not in activations
    else:
        heads = {"attention": 1, "transformer": 2}[kind]
        assert activations["attention"].shape == (2, heads, T, 6)
        np.testing.assert_allclose(activations["attention"].sum(-1), 1, atol=1e-5)


@some_kinds
def test_the_picture_matters_and_the_future_does_not(kind: str) -> None:
    model, variables, images, inputs = prepared(kind)

    @jax.jit
    def first(images: jax.Array, inputs: jax.Array) -> jax.Array:
        return log_probs(model.apply(variables, images, inputs)[0])[:, 1]

    base = first(images, inputs)
    assert jnp.abs(first(images + jnp.eye(12, 8)[None, :, :, None], inputs) - base).max() > 1e-4
    np.testing.assert_array_equal(first(images, inputs.at[:, 2:].set(3)), base)
    assert jnp.abs(first(images, inputs.at[:, 1].set(3)) - base).max() > 1e-4
    # Each picture is described alone.
    np.testing.assert_allclose(first(images[1:], inputs[1:]), base[1:], atol=1e-5)


@some_kinds
def test_all_parameters_are_used(kind: str) -> None:
    model, variables, images, inputs = prepared(kind)

    def loss(params: Any) -> jax.Array:
        return log_probs(model.apply({"params": params}, images, inputs)[0])[..., 2].sum()

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    idle = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if not jnp.abs(leaf).sum() > 0
    ]
    assert idle == []


def test_what_show_and_tell_sees_first() -> None:
    # The picture enters as the input before the first word (Vinyals et al. 2015, eqs. 10-12).
    model, variables, images, _ = prepared("lstm")
    params = jax.tree.map(np.asarray, variables["params"])["decoder"]
    (seen,), _ = model.bind(variables).body(images)
    x = np.asarray(seen).mean((1, 2)) @ params["image"]["kernel"] + params["image"]["bias"]
    lstm = params["lstm"]
    i, _, g, o = np.split(x @ lstm["input_kernel"] + lstm["bias"], 4, axis=-1)
    c = np.tanh(g) / (1 + np.exp(-i))
    memory = model.apply(variables, images, method="encode")
    np.testing.assert_allclose(memory.start["c"], c, atol=1e-5)
    np.testing.assert_allclose(memory.start["h"], np.tanh(c) / (1 + np.exp(-o)), atol=1e-5)


def test_dropout_is_in_training_alone() -> None:
    model, (_, variables, images, inputs) = make("attention", 0.5), prepared("attention")
    still = model.apply(variables, images, inputs)[0].readout.hidden
    np.testing.assert_array_equal(model.apply(variables, images, inputs)[0].readout.hidden, still)
    drawn = model.apply(variables, images, inputs, train=True, rngs={"dropout": jax.random.key(3)})
    assert jnp.abs(drawn[0].readout.hidden - still).max() > 1e-3


def test_greedy_runs_on_every_decoder() -> None:
    for kind in KINDS:
        model, variables, images, _ = prepared(kind)
        call = functools.partial(model.apply, variables)
        memory = call(images, method="encode")
        carry = model.apply(variables, memory, T, method="initial_carry")
        found = greedy(
            lambda carry, token, call=call, memory=memory: call(
                carry, token, memory, method="next_token"
            ),
            carry,
            jnp.ones(2, jnp.int32),
            end=1,
            steps=T,
        )
        assert jax.tree.leaves(found)[0].shape[0] == 2
