"""Properties of every transformer: caches, causality, padding, beams, and errors."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_transformers import (
    BASE,
    LENGTHS,
    MASK,
    MEMORY,
    MODERN,
    PAPER,
    B,
    C,
    H,
    S,
    T,
    X,
    made,
    normal,
    read,
    with_position,
)

from dlcore.errors import InputError
from dlcore.nn.attention import POSITIONS
from dlcore.nn.transformer import Transformer

CACHED = {
    **{position: with_position(MODERN, position) for position in POSITIONS},
    "alibi in chunks": dataclasses.replace(MODERN, position="alibi", chunk=2),
    "paper": PAPER,
}


QUICK = {"paper"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in CACHED],
)
def test_decoding_from_a_cache_equals_reading_all(name):
    """Steps come several at once and one by one, also with rows at different positions."""
    net, variables = made(CACHED[name], reads_memory=name == "paper")
    memory = MEMORY if net.reads_memory else None

    def step(x, carry):
        return read(net, variables, x, memory, carry=carry)[:2]

    expected, carry, _ = read(net, variables, X, memory)
    assert carry is None and net.initial_carry(B) is None
    carries, at = [net.initial_carry(B, T)], 0
    for steps in (3, 1, 1, 1):
        y, carry = step(X[:, at : at + steps], carries[-1])
        np.testing.assert_allclose(y, expected[:, at : at + steps], rtol=1e-5, atol=1e-5)
        at += steps
        carries.append(carry)
        np.testing.assert_array_equal(carry["position"], at)
    # Row b has read b + 3 steps.
    mixed = jax.tree.map(
        lambda *leaves: jnp.stack([leaf[b] for b, leaf in enumerate(leaves)]), *carries[1:4]
    )
    np.testing.assert_array_equal(mixed["position"], [3, 4, 5])
    y, _ = step(np.stack([X[b, 3 + b] for b in range(B)])[:, None], mixed)
    rows = np.stack([expected[b, 3 + b] for b in range(B)])
    np.testing.assert_allclose(y[:, 0], rows, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("rotary", marks=pytest.mark.slow),
        pytest.param("alibi in chunks", marks=pytest.mark.slow),
        "paper",
    ],
)
def test_the_future_has_no_gradient(name):
    """All of the past has a gradient, and so has the memory where it is real."""
    net, variables = made(CACHED[name], reads_memory=name == "paper")
    weights = normal(3, B, T, C)

    @jax.jit
    @functools.partial(jax.jacrev, argnums=(0, 1))
    def jacobian(x, memory):
        memory = memory if net.reads_memory else None
        return (read(net, variables, x, memory)[0] * weights).sum((0, 2))

    to_x, to_memory = (np.abs(leaf).max(-1) for leaf in jacobian(X, MEMORY))
    past = np.broadcast_to(np.tri(T, dtype=bool)[:, None], to_x.shape)
    assert not to_x[~past].any() and to_x[past].all()
    if net.reads_memory:
        real = np.broadcast_to(MASK[:, 0, 0], to_memory.shape)
        assert not to_memory[~real].any() and to_memory[real].all()


@pytest.mark.parametrize(
    "position",
    [
        pytest.param("sinusoidal", marks=pytest.mark.slow),
        "rotary",
        pytest.param("alibi", marks=pytest.mark.slow),
    ],
)
def test_padding_of_an_encoder_changes_nothing(position):
    """Neither its contents nor its amount matter; each real step sees all others."""
    config = with_position(MODERN, position)
    net, variables = made(config, causal=False)
    real = np.arange(T)[None] < LENGTHS[:, None]

    @jax.jit
    def run(x):
        weights = jnp.where(np.arange(x.shape[1])[None] < LENGTHS[:, None], 1.0, 0.0)

        def loss(x):
            y, _, activations = read(net, variables, x, lengths=LENGTHS)
            return (jnp.sin(y).sum(-1) * weights).sum(), (y, activations)

        return jax.grad(loss, has_aux=True)(x)

    short = max(LENGTHS)
    other = np.where(real[..., None], X, 100 * normal(4, B, T, C))
    (to_x, (y, _)), (to_other, (y_other, activations)) = run(X[:, :short]), run(other)
    np.testing.assert_allclose(y_other[real], y[real[:, :short]], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_other[:, :short], to_x, rtol=1e-4, atol=1e-5)
    assert not to_other[~real].any() and not to_x[~real[:, :short]].any()
    for i in range(config.layers):
        weights = np.asarray(activations[f"attention_{i}"]).swapaxes(1, 3)
        assert not weights[~real].any() and weights[real].swapaxes(1, 2)[0].any()


@pytest.mark.slow
def test_beams_are_queries_on_one_memory():
    """Row b W + w of the decoder reads row b of the memory, in one pass and step by step."""
    beams = 2
    net, variables = made(MODERN, reads_memory=True)
    x = normal(5, B * beams, T, C)
    keys_values = jax.jit(functools.partial(net.apply, method="project_keys_values"))(
        variables, MEMORY
    )

    @jax.jit
    def run(x, keys_values, mask, carry=None):
        return net.apply(variables, x, carry=carry, memory=keys_values, memory_mask=mask)

    copies, masks = jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, 0), (keys_values, MASK))
    _, expected, apart = run(x, copies, masks)
    _, y, folded = run(x, keys_values, MASK)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    weights = np.asarray(folded["memory_1"]).reshape(B, H, beams, T, S).swapaxes(1, 2)
    np.testing.assert_allclose(
        weights.reshape(-1, H, T, S), apart["memory_1"], rtol=1e-4, atol=1e-6
    )
    carry, _, activations = run(x[:, :4], keys_values, MASK, net.initial_carry(B * beams, T))
    assert "attention_1" not in activations
    _, y, _ = run(x[:, 4:5], keys_values, MASK, carry)
    np.testing.assert_allclose(y[:, 0], expected[:, 4], rtol=1e-5, atol=1e-5)


def test_learned_positions_too_short():
    net, variables = made(with_position(BASE, "learned"))
    with pytest.raises(InputError, match="a text of 7 tokens is longer than the 6 positions"):
        net.apply(variables, normal(0, B, T + 1, C))
    with pytest.raises(InputError, match="7 tokens are more than the 6 positions .* ask for fewer"):
        net.initial_carry(B, T + 1)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"position": "absolute"}, "unknown position 'absolute'; choose one of: alibi, learned"),
        ({"activation": "mish"}, "unknown activation 'mish'; choose one of: binary_step, elu"),
        ({"norm": "batch"}, "unknown norm 'batch'; choose one of: layer, rms"),
        ({"position": "learned"}, "'learned' with context None: learned positions need their"),
        ({"context": 8}, "position 'rotary' with context 8: learned positions need their number"),
        ({"heads": 3}, "3 heads cannot share 16 features"),
        ({"groups": 3}, "3 key and value heads cannot serve 4 heads"),
        ({"heads": 16}, "heads of 1 features cannot be rotated in pairs"),
        ({"features": 15, "heads": 3, "position": "sinusoidal"}, "15 features cannot be paired"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        config = dataclasses.replace(BASE, **options)
        jax.eval_shape(Transformer(config).init, jax.random.key(0), X[..., : config.features])
